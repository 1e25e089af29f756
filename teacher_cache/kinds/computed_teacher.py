"""A teacher that computes its logits: a model of any kind behind the interface of `Teacher`.

Shapes: B rows, T teacher tasks, n elements of a wide tensor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ConfigurationError, InvalidInputError, ServiceUnavailableError, first_line
from teacher_cache.config import TeacherTask, TeacherVector
from teacher_cache.teacher import TeacherOutputError, TensorSpec, name_faults

_TRIES = 3
"""Calls of a single row that must all fail before the row is to blame."""

_WITHOUT_MEMORY = ("allocat", "out of memory", "bad_alloc")
"""In the texts of onnxruntime's errors, which have one class for everything."""


class TeacherUnavailableError(ServiceUnavailableError):
    """A call of the teacher failed for another reason than its rows; the same call may succeed later."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


def failing_rows(
    score: Callable[[Sequence[int]], object],
    rows: Sequence[int],
    error: Exception,
    score_sound: Callable[[], object] | None = None,
) -> list[int]:
    """Those of `rows` with which alone `score` fails again and again, after it has failed with `error` for all of them.

    A call that fails for want of time, memory or a connection fails whatever its rows are: it is to be made again. Any
    other failure may be the rows': halves are tried, down to single rows.
    TeacherUnavailableError when it fails for another reason: with none of them alone, or also with `score_sound`, a row
    that was computed before.
    """
    _raise_if_unavailable(error)
    if score_sound is not None and _fails_always(lambda _: score_sound(), rows):
        raise _unavailable(error) from error
    found = _failing(score, rows)
    if not found:
        raise _unavailable(error) from error
    return found


def _fails_always(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> bool:
    return all(_fails(score, rows) for _ in range(_TRIES))


def _failing(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> list[int]:
    if len(rows) == 1:
        return list(rows) if _fails_always(score, rows) else []
    middle = len(rows) // 2
    return [row for half in (rows[:middle], rows[middle:]) if _fails(score, half) for row in _failing(score, half)]


def _fails(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> bool:
    try:
        score(rows)
    except Exception as error:  # noqa: BLE001 - the teachers' errors share no class
        _raise_if_unavailable(error)
        return True
    return False


def _raise_if_unavailable(error: Exception) -> None:
    text = str(error).lower()
    if isinstance(error, MemoryError | OSError) or any(words in text for words in _WITHOUT_MEMORY):
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> TeacherUnavailableError:
    if isinstance(error, TeacherUnavailableError):
        return error
    return TeacherUnavailableError(f"the teacher's call failed ({type(error).__name__}): {first_line(error)}")


_ROW_SHAPES = "[B], [B, 1] or [B, n] with a free B and a fixed n"


class Tensor(NamedTuple):
    """An input or output as a model tells it. `type` is the model's own word; `dtype` None: no teacher may have it.

    An element of `shape` that is no integer is free: any number of rows.
    """

    name: str
    type: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...]


class Model(Protocol):
    """What computes named output tensors from named input tensors, row by row."""

    @property
    def key(self) -> str:
        """Where graft.toml names it, such as teacher.onnx."""

    @property
    def types(self) -> Sequence[str]:
        """The types that an input may have, in the model's own words."""

    @property
    def advice(self) -> str:
        """What to do when a tensor has no row for each row."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """All that `run` needs."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """All that `run` can give."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """These outputs, in this order, for at least one row. `feeds` are of the inputs' types and shapes.

        Whatever it raises may be the rows' fault, but for TeacherUnavailableError and errors of the machine.
        """


class ComputedTeacher:
    """See `Teacher`. ConfigurationError names all that does not fit tasks and vectors."""

    def __init__(self, model: Model, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()) -> None:
        self._model = model
        self._tasks, self._vectors = tuple(tasks), tuple(vectors)
        self._sound: dict[str, NDArray[Any]] | None = None
        outputs = {tensor.name: tensor for tensor in model.outputs}
        faults = _input_faults(model)
        for i, task in enumerate(tasks):
            faults += _output_faults(f"tasks.{i}", task.output, outputs, is_task_shape, "allowed are [B] and [B, 1]")
        for i, vector in enumerate(vectors):
            faults += _output_faults(
                f"vectors.{i}", vector.output, outputs, is_vector_shape, "allowed is [B, n], n fixed"
            )
        faults += [f"graft.toml: {fault}" for fault in name_faults(tasks, vectors)]
        if faults:
            raise ConfigurationError(faults)
        self._shapes = {tensor.name: tensor.shape for tensor in model.inputs}
        self.inputs: Mapping[str, TensorSpec] = {tensor.name: _tensor_spec(tensor) for tensor in model.inputs}
        of_tasks: dict[str, tuple[int, ...]] = {task.name: () for task in tasks}
        self.outputs: Mapping[str, tuple[int, ...]] = of_tasks | {v.name: _row(outputs[v.output]) for v in vectors}

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See `Teacher.score`."""
        return self._logits(*self._run(inputs, [task.output for task in self._tasks]))

    def describe(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """See `Teacher.describe`."""
        names = [task.output for task in self._tasks], [vector.output for vector in self._vectors]
        rows, outputs = self._run(inputs, names[0] + names[1])
        logit_BT = self._logits(rows, outputs[: len(self._tasks)])
        found = {task.name: logit_BT[:, t] for t, task in enumerate(self._tasks)}
        for vector, output in zip(self._vectors, outputs[len(self._tasks) :], strict=True):
            with np.errstate(over="ignore"):
                found[vector.name] = output.astype(np.float32)
            _check_finite(found[vector.name], [f"vector {vector.name}"] * output.shape[1])
        return found

    def _logits(self, rows: int, outputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The tasks' outputs of so many rows as [B, T], all finite."""
        logit_BT = np.empty((rows, len(self._tasks)), np.float32)
        for i, (task, output) in enumerate(zip(self._tasks, outputs, strict=True)):
            if output.shape not in ((rows,), (rows, 1)):
                raise InvalidInputError(
                    f"teacher task {task.name}: output {task.output} has shape {list(output.shape)} for {rows} rows, "
                    f"allowed are [{rows}] and [{rows}, 1]"
                )
            with np.errstate(over="ignore"):  # beyond float32 is inf, which is refused below
                logit_BT[:, i] = output.reshape(rows)
        _check_finite(logit_BT, [f"task {task.name}" for task in self._tasks])
        return logit_BT

    def _run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> tuple[int, list[NDArray[Any]]]:
        """How many rows there are, and these outputs; errors as `Teacher.score`."""
        feeds = {name: inputs[name].reshape(-1, *shape[1:]) for name, shape in self._shapes.items()}
        rows = len(next(iter(feeds.values())))

        def part(of: Sequence[int]) -> list[NDArray[Any]]:
            return self._model.run(outputs, {name: tensor[of[0] : of[-1] + 1] for name, tensor in feeds.items()})

        try:
            found = part(range(rows))
        except Exception as error:  # the models' errors share no class of their own
            sound = None if self._sound is None else partial(self._model.run, outputs, self._sound)
            failing = failing_rows(part, range(rows), error, sound)
            raise TeacherOutputError(
                f"the teacher cannot compute row {failing[0]} ({len(failing)} of {rows} rows): {first_line(error)}",
                failing,
                f"the teacher cannot compute it: {first_line(error)}",
            ) from error
        self._sound = {name: tensor[:1].copy() for name, tensor in feeds.items()}
        return rows, found


def is_task_shape(tensor: Tensor) -> bool:
    """Whether it has one number for each row."""
    return len(tensor.shape) in (1, 2) and tensor.shape[1:] in ((), (1,))


def is_vector_shape(tensor: Tensor) -> bool:
    """Whether it has a fixed number of numbers for each row."""
    return len(tensor.shape) == 2 and isinstance(tensor.shape[1], int)


def is_float(tensor: Tensor) -> bool:
    """Whether it holds numbers that a task or a vector may have."""
    return tensor.dtype is not None and tensor.dtype.kind == "f"


def _row(tensor: Tensor) -> tuple[int, ...]:
    """The shape of one row, which is fixed."""
    return tuple(size for size in tensor.shape[1:] if isinstance(size, int))


def _tensor_spec(tensor: Tensor) -> TensorSpec:
    assert tensor.dtype is not None
    return TensorSpec(tensor.dtype, _row(tensor)[0] if len(tensor.shape) == 2 else 1)


def _input_faults(model: Model) -> list[str]:
    faults = []
    for tensor in model.inputs:
        where = f"graft.toml: {model.key}: input {tensor.name}"
        if tensor.dtype is None:
            faults.append(f"{where} has type {tensor.type}, allowed are {', '.join(model.types)}")
        if not _is_row_shape(tensor.shape):
            faults.append(f"{where} has shape {list(tensor.shape)}, allowed is {_ROW_SHAPES}; {model.advice}")
    return faults


def _is_row_shape(shape: Sequence[int | str | None]) -> bool:
    if len(shape) not in (1, 2) or isinstance(shape[0], int):
        return False
    return len(shape) == 1 or (isinstance(shape[1], int) and shape[1] >= 1)


def _output_faults(
    key: str, name: str, outputs: Mapping[str, Tensor], has_shape: Callable[[Tensor], bool], allowed: str
) -> Iterator[str]:
    """`has_shape`: whether a tensor's shape is that of a task, or of a vector; `allowed` says so in words."""
    where, tensor = f"graft.toml: teacher.{key}.output", outputs.get(name)
    if tensor is None:
        yield f"{where}: the teacher has no {name!r}, it has {', '.join(outputs)}"
    elif not is_float(tensor):
        yield f"{where}: {name!r} has type {tensor.type}, allowed is a float tensor"
    elif not has_shape(tensor):
        yield f"{where}: {name!r} has shape {list(tensor.shape)}, {allowed}"


def _check_finite(value_BX: NDArray[np.float32], names: Sequence[str]) -> None:
    finite_BX = np.isfinite(value_BX)
    if finite_BX.all():
        return
    bad = np.argwhere(~finite_BX)
    row, column = bad[0]
    rows = sorted({int(b) for b, _ in bad})
    raise TeacherOutputError(
        f"teacher {names[column]}: output of row {row} is {value_BX[row, column]}, must be finite "
        f"({len(rows)} of {len(value_BX)} rows are not)",
        rows,
        f"teacher {names[column]}: the output is {value_BX[row, column]}, must be finite",
    )
