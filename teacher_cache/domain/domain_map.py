"""The domain map: makes the teacher's input tensors from target features, or from defaults without a counterpart.

Shapes: B rows, n elements of a wide input.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec, Value
from runtime.errors import ConfigurationError
from teacher_cache.config import (
    BucketInput,
    ConcatInput,
    DefaultInput,
    FeatureInput,
    FedInput,
    HashInput,
    LinearInput,
    LogInput,
    LookupInput,
    Scalar,
    TeacherConfig,
    TeacherInput,
    VocabularyInput,
    features_of,
)
from teacher_cache.domain.domain_map_faults import faults_of_inputs, read_table
from teacher_cache.teacher import Teacher, TensorSpec

_EXACT_INTEGERS = 2.0**53  # up to here float64, in which numbers are computed, holds every integer

_NUMBERS = {int, float, type(None)}

Column = Sequence[Value]
Mapped = tuple[NDArray[Any], NDArray[np.bool_]]
"""One teacher tensor ([B], or [B, n] if wide) and which rows fell back to the default [B]."""


class MappedRows(NamedTuple):
    """The teacher's tensors by name, and which of the B rows fell back by mapped input."""

    inputs: dict[str, NDArray[Any]]
    fell_back: dict[str, NDArray[np.bool_]]

    @property
    def fallback_shares(self) -> NDArray[np.float64]:
        """For each row the share of its mapped inputs that fell back, [B] in [0, 1]."""
        size = len(next(iter(self.inputs.values())))
        return sum(self.fell_back.values(), np.zeros(size)) / max(1, len(self.fell_back))

    def at(self, places: NDArray[np.intp]) -> "MappedRows":
        """The rows at these places, in their order."""
        return MappedRows(*({name: tensor[places] for name, tensor in each.items()} for each in self))


class DomainMap:
    """Compiled `teacher.inputs`; ConfigurationError with all of `faults_of_inputs`. Pure: equal columns, equal tensors.

    A value falls back to the input's default when it is missing, is not in the lookup table, has another width, or
    does not fit the tensor's type (not finite, out of range).
    """

    def __init__(self, config: TeacherConfig, folder: Path, teacher: Teacher, spec: FeatureSpec) -> None:
        features = {feature.name: feature for feature in spec.features}
        if found := faults_of_inputs(config, folder, teacher.inputs, features):
            raise ConfigurationError(found)
        self._constants = {
            name: _constant(teacher.inputs[name], mapped.default)
            for name, mapped in config.inputs.items()
            if isinstance(mapped, DefaultInput)
        }
        self._fed = {
            name: (features_of(mapped), _compile(mapped, teacher.inputs[name], folder))
            for name, mapped in config.inputs.items()
            if not isinstance(mapped, DefaultInput)
        }

    @property
    def defaulted_share(self) -> float:
        """The share of the teacher's inputs without a counterpart in the target, in [0, 1]."""
        return len(self._constants) / (len(self._constants) + len(self._fed))

    def map_rows(self, columns: Mapping[str, Column]) -> MappedRows:
        """The teacher's inputs of B rows, given as raw values by feature name."""
        size = len(next(iter(columns.values())))
        inputs: dict[str, NDArray[Any]] = {
            name: np.broadcast_to(value, (size, *value.shape)) for name, value in self._constants.items()
        }
        fell_back = {}
        for name, (features, convert) in self._fed.items():
            inputs[name], fell_back[name] = convert(*(columns[feature] for feature in features))
        return MappedRows(inputs, fell_back)


def _constant(tensor: TensorSpec, default: Scalar | list[float]) -> NDArray[Any]:
    value = np.asarray(default, tensor.dtype)
    return np.broadcast_to(value, (tensor.width,)) if tensor.width > 1 else value.reshape(())


def _compile(  # noqa: PLR0911 - one for each kind
    mapped: FedInput, tensor: TensorSpec, folder: Path
) -> Callable[..., Mapped]:
    match mapped:
        case LookupInput() | VocabularyInput():
            return _Lookup(mapped, tensor, folder)
        case BucketInput():
            return _Bucket(mapped, tensor)
        case LinearInput():
            return _Linear(mapped, tensor)
        case LogInput():
            return _Log(mapped, tensor)
        case ConcatInput():
            return _Texts(mapped.separator, tensor, mapped.default)
        case HashInput():
            return _Hash(mapped, tensor)
        case FeatureInput():
            if tensor.width > 1:
                return _Vectors(tensor, mapped.default)
            if tensor.dtype.kind == "f":
                return _Numbers(tensor, mapped.default)
            return _Exact(tensor, mapped.default)


class _Exact:
    """Integers and strings as they are: no float64 in between, so that 64-bit ids stay whole."""

    def __init__(self, tensor: TensorSpec, default: Scalar | list[float]) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, default).item()

    def __call__(self, column: Column) -> Mapped:
        if set(map(type, column)) == {str if self._dtype.kind == "O" else int}:
            with suppress(OverflowError):  # of an integer that does not fit
                return np.array(column, self._dtype), np.zeros(len(column), np.bool_)
        missed_B = np.fromiter((not self._fits(value) for value in column), np.bool_, len(column))
        values = [self._default if missed else value for value, missed in zip(column, missed_B, strict=True)]
        return np.array(values, self._dtype), missed_B

    def _fits(self, value: Value) -> bool:
        if self._dtype.kind == "O":
            return isinstance(value, str)
        limits = np.iinfo(self._dtype)
        return isinstance(value, int) and limits.min <= value <= limits.max


class _Numbers:
    """Numbers as they are, computed in float64."""

    def __init__(self, tensor: TensorSpec, default: Scalar | list[float]) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, default)

    def __call__(self, column: Column) -> Mapped:
        return _cast(_float64(column), self._dtype, self._default)


class _Linear:
    """`multiply * x + add`, computed in float64, within its bounds."""

    def __init__(self, mapped: LinearInput, tensor: TensorSpec) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, mapped.default)
        self._multiply, self._add = mapped.multiply, mapped.add
        self._bounds = mapped.minimum, mapped.maximum

    def __call__(self, column: Column) -> Mapped:
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float64 falls back, or ends at its bound
            value_B = self._multiply * _float64(column) + self._add
        return _cast(np.clip(value_B, *self._bounds), self._dtype, self._default)


class _Log:
    """`ln(x + add)`, computed in float64."""

    def __init__(self, mapped: LogInput, tensor: TensorSpec) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, mapped.default)
        self._add = mapped.add

    def __call__(self, column: Column) -> Mapped:
        with np.errstate(over="ignore"):
            x_B = _float64(column) + self._add
        return _cast(np.log(np.where(x_B > 0, x_B, np.nan)), self._dtype, self._default)


class _Texts:
    """The texts of several columns as one; an integer's text is its decimal digits."""

    def __init__(self, separator: str, tensor: TensorSpec, default: Scalar) -> None:
        self._separator = separator
        self._dtype = tensor.dtype
        self._default = default

    def __call__(self, *columns: Column) -> Mapped:
        texts = self.texts(columns)
        missed_B = np.fromiter((text is None for text in texts), np.bool_, len(texts))
        return np.array([self._default if text is None else text for text in texts], self._dtype), missed_B

    def texts(self, columns: Sequence[Column]) -> list[str | None]:
        """One for each row; None where a feature is missing."""
        rows = zip(*columns, strict=True)
        return [None if None in row else self._separator.join(map(str, row)) for row in rows]


class _Hash:
    """The bucket of a text."""

    def __init__(self, mapped: HashInput, tensor: TensorSpec) -> None:
        self._texts = _Texts(mapped.separator, tensor, mapped.default).texts
        self._dtype = tensor.dtype
        self._mapped = mapped

    def __call__(self, *columns: Column) -> Mapped:
        codes = [self._code(text) for text in self._texts(columns)]
        missed_B = np.fromiter((code is None for code in codes), np.bool_, len(codes))
        return np.array([self._mapped.default if code is None else code for code in codes], self._dtype), missed_B

    def _code(self, text: str | None) -> int | None:
        if text is None:
            return None
        hashed = mmh3.hash(text.encode("utf-8", "surrogatepass"), self._mapped.seed, signed=False)
        return self._mapped.first + hashed % self._mapped.buckets


class _Vectors:
    """Lists of n numbers."""

    def __init__(self, tensor: TensorSpec, default: Scalar | list[float]) -> None:
        self._tensor = tensor
        self._default = _constant(tensor, default)

    def __call__(self, column: Column) -> Mapped:
        lost = [np.nan] * self._tensor.width
        rows = [v if isinstance(v, list) and len(v) == self._tensor.width else lost for v in column]
        values = np.asarray(rows, np.float64).reshape(len(rows), self._tensor.width)
        return _cast(values, self._tensor.dtype, self._default)


class _Lookup:
    """Values of a table by the feature's text; an integer's text is its decimal digits."""

    def __init__(self, mapped: LookupInput | VocabularyInput, tensor: TensorSpec, folder: Path) -> None:
        self._dtype = tensor.dtype
        self._table: dict[Any, Scalar] = dict(read_table(mapped, folder))
        self._default = mapped.default

    def __call__(self, column: Column) -> Mapped:
        is_text = set(map(type, column)) == {str}
        keys = column if is_text else [None if value is None else str(value) for value in column]
        found = list(map(self._table.get, keys))
        missed_B = np.fromiter((value is None for value in found), np.bool_, len(found))
        values = [self._default if value is None else value for value in found] if missed_B.any() else found
        return np.array(values, self._dtype), missed_B


class _Bucket:
    """`codes[i]` for boundaries[i-1] <= x < boundaries[i]."""

    def __init__(self, mapped: BucketInput, tensor: TensorSpec) -> None:
        self._boundaries = np.asarray(mapped.boundaries, np.float64)
        self._codes = np.asarray(mapped.codes, tensor.dtype)
        self._default = _constant(tensor, mapped.default)

    def __call__(self, column: Column) -> Mapped:
        x_B = _float64(column)
        missed_B = ~np.isfinite(x_B)
        codes_B = self._codes[np.searchsorted(self._boundaries, x_B, side="right")]
        return np.where(missed_B, self._default, codes_B), missed_B


def _float64(column: Column) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    if set(map(type, column)) <= _NUMBERS:
        return np.array(column, np.float64)  # makes NaN of None
    return np.array([v if isinstance(v, int | float) else np.nan for v in column], np.float64)


def _cast(values: NDArray[np.float64], dtype: np.dtype[Any], default: NDArray[Any]) -> Mapped:
    """`values` [B] or [B, n] as `dtype`, and the default's row where one does not fit."""
    limit = min(_EXACT_INTEGERS, float(np.iinfo(dtype).max)) if dtype.kind == "i" else float(np.finfo(dtype).max)
    fits = np.less_equal(np.abs(values), limit)  # False for NaN
    fits_B: NDArray[np.bool_] = np.asarray(fits.all(axis=tuple(range(1, values.ndim))))
    chosen = fits_B.reshape(len(values), *[1] * (values.ndim - 1))
    return np.where(chosen, np.where(fits, values, 0.0).astype(dtype), default), ~fits_B


class ExplainedInput(NamedTuple):
    """One input of the teacher for one row.

    `value`: what the teacher gets, a list where the input is wide. `feature` and `raw`: the target feature that feeds
    it and its value, of several the names with commas and a list; None for an input without a counterpart. `fell_back`:
    whether the input's default took its place.
    """

    name: str
    value: Any
    kind: str
    feature: str | None
    raw: Value | list[Value]
    transform: str
    fell_back: bool

    def line(self) -> str:
        """As text."""
        if self.feature is None:
            return f"{self.name} = {self.value!r}: the default of every row"
        if self.raw is None:
            return f"{self.name} = {self.value!r}: {self.feature} is missing, so the default"
        back = ", which does not fit, so the default" if self.fell_back else ""
        return f"{self.name} = {self.value!r}: {self.feature} is {self.raw!r}, {self.transform}{back}"


def explained(
    domain_map: DomainMap, inputs: Mapping[str, TeacherInput], columns: Mapping[str, Sequence[Value]]
) -> list[ExplainedInput]:
    """Each input for the one row of `columns`, given as raw values by feature name."""
    mapped, fell_back = domain_map.map_rows(columns)
    found = []
    for name, given in inputs.items():
        features = [] if isinstance(given, DefaultInput) else features_of(given)
        raws = [columns[feature][0] for feature in features]
        value = mapped[name][0].tolist() if hasattr(mapped[name][0], "tolist") else mapped[name][0]
        back = bool(fell_back[name][0]) if name in fell_back else False
        feature, raw = ", ".join(features) or None, raws[0] if len(raws) == 1 else raws or None
        found.append(ExplainedInput(name, value, given.kind, feature, raw, _transform(given), back))
    return found


def _transform(given: TeacherInput) -> str:  # noqa: PLR0911 - one for each kind
    match given:
        case LookupInput():
            return f"looked up in {given.file or 'its table'}"
        case BucketInput():
            return f"its bucket between {', '.join(f'{one:g}' for one in given.boundaries)}"
        case LinearInput():
            bounds = [(word, bound) for word, bound in (("least", given.minimum), ("most", given.maximum))]
            told = "".join(f", at {word} {bound:g}" for word, bound in bounds if bound is not None)
            return f"times {given.multiply:g} plus {given.add:g}{told}"
        case LogInput():
            return f"plus {given.add:g}, the natural logarithm"
        case VocabularyInput():
            return f"its line in {given.file}, the first is {given.first}"
        case ConcatInput():
            return f"joined by {given.separator!r}"
        case HashInput():
            joined = f"joined by {given.separator!r}, " if len(given.features) > 1 else ""
            return f"{joined}hashed into {given.buckets:,} buckets"
        case DefaultInput():
            return "the default of every row"
        case _:
            return "as it is"
