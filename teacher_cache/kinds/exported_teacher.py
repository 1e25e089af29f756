"""A teacher in a file of torch.export.save, computed without torch.export.load, which unpickles.

The graph is walked here, step by step, with torch's own operators on the CPU: functional ones of aten and no other.
What the file says is never executed, evaluated or unpickled. See docs/decisions/021-kinds-of-teachers.md.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.errors import ConfigurationError, first_line
from teacher_cache.config import TeacherTask, TeacherVector
from teacher_cache.kinds.computed_teacher import ComputedTeacher, Tensor
from teacher_cache.kinds.exported_archive import Archive, NotExportedError, Payload, read_archive
from teacher_cache.kinds.exported_graph import (
    Graph,
    InputTensor,
    OutputTensor,
    Ref,
    Special,
    Step,
    read_graph,
    references,
)

_KEY = "teacher.torch_export"
_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16, 28: torch.uint16,
}  # fmt: skip
"""By ScalarType of the schema."""
_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.int16: np.dtype(np.int16),
    torch.int8: np.dtype(np.int8),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.float16: np.dtype(np.float16),
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format
}  # fmt: skip
_STRIDED = 7
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "truediv")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("and_", "or_")},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not")},
    "math.trunc": math.trunc,
}
"""What sizes, which are numbers, are computed by."""
_WITHOUT_TENSORS = ("arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros", "_assert_scalar")
"""The operators without a tensor among their arguments that are taken; from_file is not one of them."""
_LONGEST_PADDING = 4_096
_TRACED_ROWS = 2  # torch traces a free size as one of at least two, whatever bounds it tells
_ODD = (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError, RuntimeError)
"""What a graph with odd values leads to."""


def open_exported(path: Path, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()) -> ComputedTeacher:
    """The teacher in the file, on one CPU thread. ConfigurationError names all that does not fit tasks and vectors."""
    return ComputedTeacher(ExportedModel(path), tasks, vectors)


class ExportedModel:
    """See `computed_teacher.Model`. Its outputs have the keys of the dict that forward returns, or "0", "1", ..."""

    key = _KEY
    types: Sequence[str] = tuple(str(one) for one in _DTYPES)
    advice = "export the teacher with a dynamic batch axis, such as dynamic_shapes of torch.export.Dim('rows')"

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigurationError([f"graft.toml: {_KEY}: {path} is no file; name what torch.export.save wrote"])
        try:
            archive = read_archive(path)
            graph = read_graph(archive)
            self._program = _Program(graph, _weights(graph, archive))
        except (NotExportedError, OSError) as error:
            raise ConfigurationError([f"graft.toml: {_KEY}: {path}: {first_line(error)}"]) from error
        except _ODD as error:
            fault = f"it is not as torch writes it: {type(error).__name__}: {first_line(error)}"
            raise ConfigurationError([f"graft.toml: {_KEY}: {path}: {fault}"]) from error
        self.inputs = [_tensor(one) for one in graph.inputs]
        self.outputs = [_tensor(one) for one in graph.outputs]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """See `computed_teacher.Model.run`."""
        rows, most = len(next(iter(feeds.values()))), self._program.most_rows
        parts = [
            self._program.compute(outputs, {name: one[at : at + most] for name, one in feeds.items()})
            for at in range(0, rows, most)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(one) for one in zip(*parts, strict=True)]


class _Call(NamedTuple):
    """A step with its operator. `dead`: the values that no later step takes."""

    function: Callable[..., Any]
    positional: Sequence[Any]
    keywords: Mapping[str, Any]
    step: Step
    dead: Sequence[str]


class _Program:
    """A graph whose operators are known. `least_rows`, `most_rows`: how many it was exported for."""

    def __init__(self, graph: Graph, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights
        self._inputs = [one.name for one in graph.inputs]
        self._outputs = {one.name: one.value for one in graph.outputs}
        self._calls = _calls(graph, weights)
        bounds = [graph.ranges.get(one.symbol or "", (None, None)) for one in graph.inputs]
        self.least_rows = max([_TRACED_ROWS, *(low for low, _ in bounds if low is not None)])
        self.most_rows = min([1 << 20, *(high for _, high in bounds if high is not None)])
        if self.least_rows > _LONGEST_PADDING or self.most_rows < self.least_rows:
            raise NotExportedError(
                f"it takes {self.least_rows} to {self.most_rows} rows, allowed is any number: "
                "export it with a Dim without min and max"
            )

    def compute(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """These outputs for at most `most_rows` rows; the last row stands in for those that are missing."""
        rows = len(next(iter(feeds.values())))
        missing = max(0, self.least_rows - rows)
        values: dict[str, Any] = dict(self._weights)
        for name in self._inputs:
            padded = np.concatenate([feeds[name], np.repeat(feeds[name][-1:], missing, axis=0)])
            values[name] = torch.from_numpy(padded)
        with torch.inference_mode(), one_thread():
            for call in self._calls:
                _compute(call, values)
            return [np.array(values[self._outputs[name]].numpy())[:rows] for name in outputs]


def _compute(call: _Call, values: dict[str, Any]) -> None:
    """Add what the step gives, and remove what no later one takes."""
    positional = [_resolved(one, values) for one in call.positional]
    keywords = {name: _resolved(one, values) for name, one in call.keywords.items()}
    result = call.function(*positional, **keywords)
    names = call.step.outputs
    if names:
        results = [result] if len(names) == 1 and not call.step.is_list else result
        values.update({name: one for name, one in zip(names, results, strict=True) if name is not None})
    for name in call.dead:
        del values[name]


def _resolved(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_resolved(one, values) for one in argument]
    return argument


def _calls(graph: Graph, weights: Mapping[str, torch.Tensor]) -> list[_Call]:
    """The steps with their operators. NotExportedError with every operator that is not taken."""
    known = {*weights, *(one.name for one in graph.inputs)}
    kept = {*weights, *(one.value for one in graph.outputs)}
    last = {name: place for place, step in enumerate(graph.steps) for name in references(step)}
    faults: dict[str, str] = {}
    calls = []
    for place, step in enumerate(graph.steps):
        if unknown := [name for name in references(step) if name not in known]:
            raise NotExportedError(f"{step.target} takes {unknown[0]!r}, which nothing gives before")
        made = [name for name in step.outputs if name is not None]
        if doubled := known.intersection(made):
            raise NotExportedError(f"{step.target} gives {min(doubled)!r}, which is given before")
        known.update(made)
        dead = {name for name in {*references(step), *made} if last.get(name, place) == place and name not in kept}
        try:
            calls.append(_call(step, sorted(dead)))
        except NotExportedError as error:
            faults.setdefault(step.target, str(error))
    if faults:
        raise NotExportedError("; ".join(faults.values()))
    if lost := [one.value for one in graph.outputs if one.value not in known]:
        raise NotExportedError(f"it gives {lost[0]!r}, which nothing has computed")
    return calls


def _call(step: Step, dead: Sequence[str]) -> _Call:
    arguments = {name: _converted(one) for name, one in step.arguments.items()}
    if step.target in _OF_NUMBERS:
        return _Call(_OF_NUMBERS[step.target], list(arguments.values()), {}, step, dead)
    function = _operator(step.target)
    _check_operator(function, step)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for declared in function._schema.arguments:  # noqa: SLF001 - torch has no other name for it
        if declared.name not in arguments:
            continue
        if declared.kwarg_only or len(positional) + len(keywords) != _place(function, declared.name):
            keywords[declared.name] = arguments[declared.name]
        else:
            positional.append(arguments[declared.name])
    if len(positional) + len(keywords) != len(arguments):
        raise NotExportedError(f"{step.target} has arguments that this torch {torch.__version__} does not know")
    return _Call(function, positional, keywords, step, dead)


def _place(function: Any, name: str) -> int:
    return [one.name for one in function._schema.arguments].index(name)  # noqa: SLF001


def _operator(target: str) -> Any:
    """The operator of aten of this name."""
    parts = target.split(".")
    found: Any = None
    if len(parts) == 5 and parts[:3] == ["torch", "ops", "aten"]:
        try:
            found = getattr(getattr(torch.ops.aten, parts[3]), parts[4])
        except (AttributeError, RuntimeError):
            found = None
    if not isinstance(found, torch._ops.OpOverload) or torch.Tag.pt2_compliant_tag not in found.tags:  # noqa: SLF001
        raise NotExportedError(
            f"{target[:120]} is no operator that is computed here; allowed are those of torch.ops.aten: "
            "call run_decompositions() of the exported program before it is saved"
        )
    return found


def _check_operator(function: Any, step: Step) -> None:
    """Refuse what changes a tensor, draws random numbers, or reads something else than its tensors."""
    schema = function._schema  # noqa: SLF001
    if schema.is_mutable:
        raise NotExportedError(
            f"{step.target} changes a tensor in place: call run_decompositions() of the exported program before it is "
            "saved"
        )
    if torch.Tag.nondeterministic_seeded in function.tags and not _is_fixed(schema, step):
        raise NotExportedError(f"{step.target} draws random numbers: call eval() of the module before it is exported")
    has_tensor = any("Tensor" in str(one.type) for one in schema.arguments)
    if not has_tensor and step.target.split(".")[3] not in _WITHOUT_TENSORS:
        raise NotExportedError(f"{step.target} takes no tensor; of such operators allowed are {_WITHOUT_TENSORS}")


def _is_fixed(schema: Any, step: Step) -> bool:
    """Whether an operator with random numbers is told to draw none, as dropout is after eval()."""
    given = {one.name: step.arguments.get(one.name, one.default_value) for one in schema.arguments}
    return any(given.get(name) is False for name in ("train", "training")) or any(
        name in given and given[name] == 0 for name in ("p", "dropout_p")
    )


def _converted(argument: Any) -> Any:
    """The argument in torch's own types, but for references."""
    if not isinstance(argument, Special):
        return argument
    if argument.kind == "device":
        return torch.device("cpu")  # wherever it was exported
    if argument.kind == "layout" and argument.code == _STRIDED:
        return torch.strided
    known: dict[str, Mapping[Any, Any]] = {"scalar_type": _TYPES, "memory_format": _MEMORY_FORMATS}
    found = known.get(argument.kind, {}).get(argument.code)
    if found is None:
        raise NotExportedError(f"{argument.kind} {argument.code!r} is not computed here")
    return found


def _weights(graph: Graph, archive: Archive) -> dict[str, torch.Tensor]:
    found = {}
    for value, (kind, name) in graph.weights.items():
        payload = (archive.weights if kind == "weights" else archive.constants).get(name)
        if payload is None:
            raise NotExportedError(f"the tensor {name} is not in the file")
        try:
            found[value] = _weight(name, payload)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, NotExportedError):
                raise
            raise NotExportedError(f"the tensor {name} is not described as torch writes it: {error!r}") from None
    return found


def _weight(name: str, payload: Payload) -> torch.Tensor:
    """A tensor over the bytes of its storage, within them."""
    meta = payload.meta
    dtype = _TYPES.get(meta["dtype"])
    if dtype is None or meta["layout"] != _STRIDED:
        raise NotExportedError(f"the tensor {name} is of a type or layout that is not computed here")
    sizes, strides = ([int(one["as_int"]) for one in meta[key]] for key in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    held = len(payload.data) // dtype.itemsize
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    elements = math.prod(sizes)
    if min([0, offset, *sizes, *strides]) < 0 or (elements and (last >= held or elements > held)):
        raise NotExportedError(f"the tensor {name} reaches beyond its {len(payload.data):,} bytes")
    if not elements:
        return torch.zeros(sizes, dtype=dtype)
    return torch.as_strided(torch.frombuffer(payload.data, dtype=dtype, count=held), sizes, strides, offset)


def _tensor(told: InputTensor | OutputTensor) -> Tensor:
    dtype = _TYPES.get(told.scalar_type)
    free = ["B", *["n"] * len(told.sizes)]
    shape = tuple(free[place] if size is None else size for place, size in enumerate(told.sizes))
    return Tensor(told.name, str(dtype), None if dtype is None else _DTYPES.get(dtype), shape)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch: the same sums on every machine, and faster than several on a busy one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
