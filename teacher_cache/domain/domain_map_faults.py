"""Finds every fault of `teacher.inputs` at once, its tables' too, for `graft check` and before the map is compiled."""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from features.spec import Feature
from runtime.errors import GraftError
from runtime.folder import lies_within
from teacher_cache.config import (
    BucketInput,
    ConcatInput,
    DefaultInput,
    FedInput,
    HashInput,
    LinearInput,
    LogInput,
    LookupInput,
    Scalar,
    TeacherConfig,
    TeacherInput,
    TeacherTask,
    VocabularyInput,
    features_of,
)
from teacher_cache.teacher import Teacher, TensorSpec

_SHOWN_VALUES = 3
_FeatureTypes = dict[tuple[str, str], tuple[str, ...]]
_USABLE: _FeatureTypes = {
    ("feature", "i"): ("int",),
    ("feature", "f"): ("int", "float"),
    ("feature", "O"): ("str",),
    ("feature", "f[n]"): ("float_list",),
    ("lookup", "i"): ("int", "str"),
    ("lookup", "f"): ("int", "str"),
    ("lookup", "O"): ("int", "str"),
    ("bucket", "i"): ("int", "float"),
    ("bucket", "f"): ("int", "float"),
    ("linear", "i"): ("int",),
    ("linear", "f"): ("int", "float"),
    ("log", "f"): ("int", "float"),
    ("vocabulary", "i"): ("int", "str"),
    ("vocabulary", "f"): ("int", "str"),
    ("concat", "O"): ("int", "str"),
    ("hash", "i"): ("int", "str"),
    ("hash", "f"): ("int", "str"),
}
"""The feature types that a kind of input can turn into a tensor's type."""


def faults_of_inputs(
    config: TeacherConfig,
    folder: Path,
    tensors: Mapping[str, TensorSpec] | None,
    features: Mapping[str, Feature] | None,
) -> list[str]:
    """Every fault of the domain map, in the order of graft.toml; each with its key, the value and what is allowed.

    What is not known (None: the teacher's inputs, the target's features) counts as sound.
    """
    if tensors is None:
        return [
            f"{_key(name)}{fault}"
            for name, mapped in config.inputs.items()
            for fault in _faults_without_tensor(mapped, features, folder)
        ]
    found: list[str] = []
    for name, mapped in config.inputs.items():
        key = _key(name)
        tensor = tensors.get(name)
        if tensor is None:
            found.append(f"{key}: the teacher has no such input, {_what_there_is(name, tensors)}")
            found += [f"{key}{fault}" for fault in _faults_without_tensor(mapped, features, folder)]
        else:
            found += [f"{key}{fault}" for fault in _input_faults(mapped, tensor, features, folder)]
    found += [
        f"{_key(name)}: the teacher's input of type {_type_name(tensor)} is not mapped; "
        'give it a feature, or kind = "default" and a default'
        for name, tensor in tensors.items()
        if name not in config.inputs
    ]
    return found


def _key(name: str) -> str:
    return f"graft.toml: teacher.inputs.{name}"


def _faults_without_tensor(mapped: TeacherInput, features: Mapping[str, Feature] | None, folder: Path) -> Iterator[str]:
    """What can be said without the teacher's input."""
    if not isinstance(mapped, DefaultInput) and features is not None:
        yield from (_unknown_feature(key, name, features) for key, name in _fed_by(mapped) if name not in features)
    if isinstance(mapped, LookupInput | VocabularyInput):
        try:
            read_table(mapped, folder)
        except LookupTableError as error:
            yield f": {error}"
    if isinstance(mapped, BucketInput):
        yield from _boundary_faults(mapped)


def _input_faults(
    mapped: TeacherInput, tensor: TensorSpec, features: Mapping[str, Feature] | None, folder: Path
) -> Iterator[str]:
    values = _Values.of(tensor)
    if not isinstance(mapped, DefaultInput):
        yield from _feature_faults(mapped, tensor, features)
    match mapped:
        case LookupInput() | VocabularyInput():
            yield from _lookup_faults(mapped, values, folder)
        case BucketInput():
            yield from _bucket_faults(mapped, values)
        case LinearInput():
            yield from _linear_faults(mapped, tensor)
        case LogInput() if not isfinite(mapped.add):
            yield f".add: must be finite, got {mapped.add}"
        case HashInput() if not values.fits(mapped.first + mapped.buckets - 1):
            yield f".buckets: the last code, {mapped.first + mapped.buckets - 1}, must be {values.allowed}"
    yield from _default_faults(mapped.default, values, tensor)


def _fed_by(mapped: FedInput) -> list[tuple[str, str]]:
    """Key and name of each target feature that feeds an input."""
    if isinstance(mapped, ConcatInput | HashInput):
        return [(f".features.{number}", name) for number, name in enumerate(mapped.features)]
    return [(".feature", name) for name in features_of(mapped)]


def _feature_faults(mapped: FedInput, tensor: TensorSpec, features: Mapping[str, Feature] | None) -> Iterator[str]:
    form = tensor.dtype.kind + ("[n]" if tensor.width > 1 else "")
    allowed = _USABLE.get((mapped.kind, form))
    if allowed is None:
        kinds = sorted({kind for kind, its_form in _USABLE if its_form == form})
        yield (
            f".kind: {mapped.kind!r} cannot feed an input of type {_type_name(tensor)}, "
            f"allowed are {', '.join(['default', *kinds])}"
        )
    if features is None:
        return
    for key, name in _fed_by(mapped):
        feature = features.get(name)
        if feature is None:
            yield _unknown_feature(key, name, features)
        elif allowed is not None and feature.dtype not in allowed:
            yield (
                f"{key}: {name!r} is of type {feature.dtype}, from which {mapped.kind!r} cannot make "
                f"{_type_name(tensor)}; allowed is {' or '.join(allowed)}"
            )
        elif isinstance(feature.default, list) and len(feature.default) != tensor.width:
            yield f"{key}: {name!r} has {len(feature.default)} elements, the teacher's input takes {tensor.width}"


def _lookup_faults(mapped: LookupInput | VocabularyInput, values: "_Values", folder: Path) -> Iterator[str]:
    try:
        table = read_table(mapped, folder)
    except LookupTableError as error:
        yield f": {error}"
        return
    bad = [f"{key!r}: {value!r}" for key, value in table.items() if not values.fits(value)]
    if bad:
        where = ".table" if mapped.file is None else f".file: {str(mapped.file)!r}"
        yield f"{where}: every value must be {values.allowed}, got {', '.join(bad[:_SHOWN_VALUES])}"


def _unknown_feature(key: str, name: str, features: Iterable[str]) -> str:
    return f"{key}: the feature spec has no {name!r}, {_what_there_is(name, features)}"


def _bucket_faults(mapped: BucketInput, values: "_Values") -> Iterator[str]:
    yield from _boundary_faults(mapped)
    bad = [repr(code) for code in mapped.codes if not values.fits(code)]
    if bad:
        yield f".codes: every code must be {values.allowed}, got {', '.join(bad[:_SHOWN_VALUES])}"


def _boundary_faults(mapped: BucketInput) -> Iterator[str]:
    boundaries = mapped.boundaries
    if not all(isfinite(x) for x in boundaries) or any(low >= high for low, high in pairwise(boundaries)):
        yield f".boundaries: must be finite and rise strictly, got {boundaries}"
    if len(mapped.codes) != len(boundaries) + 1:
        yield f".codes: {len(boundaries)} boundaries need {len(boundaries) + 1} codes, got {len(mapped.codes)}"


def _linear_faults(mapped: LinearInput, tensor: TensorSpec) -> Iterator[str]:
    factors = ("multiply", "add", "minimum", "maximum")
    for name, value in ((name, getattr(mapped, name)) for name in factors):
        if value is None:
            continue
        if not isfinite(value):
            yield f".{name}: must be finite, got {value}"
        elif tensor.dtype.kind == "i" and not value.is_integer():
            yield f".{name}: must be a whole number for an input of type {_type_name(tensor)}, got {value}"
    if mapped.minimum is not None and mapped.maximum is not None and mapped.minimum > mapped.maximum:
        yield f".minimum: must not be above maximum, {mapped.maximum}, got {mapped.minimum}"


def _default_faults(default: Any, values: "_Values", tensor: TensorSpec) -> Iterator[str]:
    if isinstance(default, list):
        if tensor.width == 1 or len(default) != tensor.width or not all(values.fits(x) for x in default):
            yield f".default: must be {_default_form(values, tensor)}, got {default!r}"
    elif not values.fits(default):
        yield f".default: must be {_default_form(values, tensor)}, got {default!r}"


def _default_form(values: "_Values", tensor: TensorSpec) -> str:
    return values.allowed if tensor.width == 1 else f"{values.allowed}, or a list of {tensor.width} such values"


class _Values(NamedTuple):
    """Which TOML and JSON values a tensor's element can hold, and how to say so."""

    allowed: str
    fits: Callable[[Any], bool]

    @classmethod
    def of(cls, tensor: TensorSpec) -> "_Values":
        """What the elements of `tensor` can hold."""
        if tensor.dtype.kind == "O":
            return cls("a text", lambda value: isinstance(value, str))
        if tensor.dtype.kind == "i":
            limits = np.iinfo(tensor.dtype)
            return cls(
                f"a whole number of type {tensor.dtype.name}",
                lambda value: _is_whole(value) and limits.min <= value <= limits.max,
            )
        largest = float(np.finfo(tensor.dtype).max)
        return cls("a finite number", lambda value: isinstance(value, int | float) and abs(value) <= largest)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _type_name(tensor: TensorSpec) -> str:
    name = "string" if tensor.dtype.kind == "O" else tensor.dtype.name
    return name if tensor.width == 1 else f"{name}[{tensor.width}]"


def _what_there_is(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(names))}"


class LookupTableError(ValueError):
    """A table that cannot be used; the text says why, without the key in graft.toml."""


def read_table(config: LookupInput | VocabularyInput, folder: Path) -> Mapping[str, Scalar]:
    """Value by key. LookupTableError: both or none given, or the file is outside, missing or not of its form."""
    if isinstance(config, VocabularyInput):
        return _read_vocabulary(config, folder)
    if (config.table is None) == (config.file is None):
        given = "neither" if config.table is None else "both"
        raise LookupTableError(f"needs a table or a file, got {given}; allowed is one of the two")
    if config.file is None:
        return config.table or {}
    return _read_file(config.file, folder)


def _read_vocabulary(config: VocabularyInput, folder: Path) -> Mapping[str, Scalar]:
    text = _text_of(config.file, folder).removeprefix("\ufeff")
    if not text:
        raise LookupTableError(f"file {str(config.file)!r} is empty")
    lines = text.removesuffix("\n").split("\n")
    values = [line.removesuffix("\r") for line in lines]
    table = {value: config.first + number for number, value in enumerate(values)}
    if len(table) < len(values):
        _refuse_twice(config.file, "line", values)
    return table


def _refuse_twice(file: Path, what: str, given: Iterable[str]) -> NoReturn:
    text, count = Counter(given).most_common(1)[0]
    raise LookupTableError(f"file {str(file)!r} has the {what} {text!r} {count} times; each may stand once")


def _text_of(file: Path, folder: Path) -> str:
    path = folder / file
    if not lies_within(path, folder):
        raise LookupTableError(f"file {str(file)!r} lies outside the project folder; copy it into the folder")
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LookupTableError(f"file {str(file)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise LookupTableError(f"file {str(file)!r} is not UTF-8 from byte {error.start} on") from None


def _read_file(file: Path, folder: Path) -> Mapping[str, Scalar]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            _refuse_twice(file, "key", [key for key, _ in pairs])
        return found

    try:
        table: Any = json.loads(_text_of(file, folder), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LookupTableError):
            raise
        raise LookupTableError(f"file {str(file)!r} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise LookupTableError(f"file {str(file)!r} holds a JSON {type(table).__name__}, allowed is an object")
    bad = [f"{key!r}: {value!r}" for key, value in table.items() if not _is_scalar(value)]
    if bad:
        raise LookupTableError(
            f"file {str(file)!r} has values that are no number or text: {', '.join(bad[:_SHOWN_VALUES])}"
        )
    return table


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


_SATURATED = 20.0  # a probability within 2e-9 of 0 or 1


def probability_warnings(
    teacher: Teacher, tasks: Sequence[TeacherTask], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, str]:
    """Task -> what is odd of its output: all these rows have it within [0, 1], and not the same one, or most are sure.

    Nothing of rows that the teacher cannot score.
    """
    try:
        logit_BT = teacher.score(inputs)
    except GraftError:
        return {}
    found = {}
    for t, task in enumerate(tasks):
        low, high = float(np.min(logit_BT[:, t])), float(np.max(logit_BT[:, t]))
        sure = float(np.mean(np.abs(logit_BT[:, t]) > _SATURATED))
        if task.kind == "binary" and sure > 0.5:
            found[task.name] = (
                f"its output {task.output} is beyond {_SATURATED:g} in size on {sure:.0%} of {len(logit_BT)} rows: as "
                "a logit that is a certainty, of which a student learns little; export the model's own logit, or a "
                "smaller multiple of it"
            )
        if task.kind == "binary" and 0 <= low < high <= 1:
            found[task.name] = (
                f"its output {task.output} is from {low:.3g} to {high:.3g} on {len(logit_BT)} rows, which looks like a "
                "probability; a binary task needs the logit: docs/export-a-teacher.md tells how to export it"
            )
    return found
