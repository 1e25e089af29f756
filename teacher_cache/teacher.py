"""The teacher, used exactly as it is: it takes named tensors and gives one logit per row and task.

Shapes: B rows, T teacher tasks in the order of `TeacherConfig.tasks`, n elements of a wide input.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.errors import ConfigurationError, InvalidInputError
from teacher_cache.bisection import failing_rows
from teacher_cache.config import TeacherConfig, TeacherTask, TeacherVector

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(string)": np.dtype(object),
}
_ROW_SHAPES = "[B], [B, 1] or [B, n] with a free B and a fixed n; export the teacher with a dynamic batch axis"


class TensorSpec(NamedTuple):
    """One tensor of B rows: `dtype` (object holds strings) and the elements of one row."""

    dtype: np.dtype[Any]
    width: int


class TeacherOutputError(InvalidInputError):
    """Rows without usable outputs: the text names the first one, `rows` has all of them, at least one.

    The other rows can be scored without them. `reason` holds for each of them alone.
    """

    def __init__(self, message: str, rows: Sequence[int], reason: str) -> None:
        self.rows, self.reason = tuple(rows), reason
        super().__init__(message)


class Teacher(Protocol):
    """Scores rows of the target domain; its weights never change."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Every tensor that `score` needs."""

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Finite logits (binary) or values in the label's unit (regression), [B, T].

        `inputs` has every tensor of `self.inputs`, [B] where its width is 1 and else [B, n]; B >= 1.
        TeacherOutputError: rows whose output is not finite, or that the teacher cannot compute. TeacherUnavailableError
        when the call failed for another reason, such as want of memory.
        """

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Of each task and vector, by its name, the shape of one row: () of a task, (n,) of a vector."""

    def describe(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """As `score`, by name: of each task [B], and of each vector [B, n]."""


class OnnxTeacher:
    """A teacher in an ONNX file, on one CPU thread. ConfigurationError names all that does not fit `config`.

    No custom operators are loaded; onnxruntime refuses external weights outside the folder of the file.
    """

    def __init__(self, path: Path, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()) -> None:
        self._session = _open_session(path)
        self._tasks, self._vectors = tuple(tasks), tuple(vectors)
        self._sound: dict[str, NDArray[Any]] | None = None
        self._shapes = {tensor.name: list(tensor.shape) for tensor in self._session.get_inputs()}
        faults = _input_faults(self._session) + _task_faults(self._session, self._tasks)
        faults += _vector_faults(self._session, self._vectors, [task.name for task in tasks])
        if faults:
            raise ConfigurationError(faults)
        self.inputs: Mapping[str, TensorSpec] = {t.name: _tensor_spec(t) for t in self._session.get_inputs()}
        shapes = {tensor.name: tuple(tensor.shape[1:]) for tensor in self._session.get_outputs()}
        of_tasks: dict[str, tuple[int, ...]] = {task.name: () for task in tasks}
        self.outputs: Mapping[str, tuple[int, ...]] = of_tasks | {v.name: shapes[v.output] for v in vectors}

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
            return self._outputs({name: tensor[of[0] : of[-1] + 1] for name, tensor in feeds.items()}, outputs)

        try:
            found = part(range(rows))
        except Exception as error:  # onnxruntime's errors share no class of their own
            sound = None if self._sound is None else partial(self._outputs, self._sound, outputs)
            failing = failing_rows(part, range(rows), error, sound)
            raise TeacherOutputError(
                f"the teacher cannot compute row {failing[0]} ({len(failing)} of {rows} rows): {_first_line(error)}",
                failing,
                f"the teacher cannot compute it: {_first_line(error)}",
            ) from error
        self._sound = {name: tensor[:1].copy() for name, tensor in feeds.items()}
        return rows, found

    def _outputs(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self._session.run(list(outputs), feeds)
        return found


def load_teacher(config: TeacherConfig, folder: Path) -> Teacher:
    """The teacher that `config` names; a relative path starts at `folder`. ConfigurationError with all faults."""
    return OnnxTeacher(folder / config.onnx, config.tasks, config.vectors)


def _open_session(path: Path) -> Any:
    if not path.is_file():
        raise ConfigurationError([f"graft.toml: teacher.onnx: {path} is no file; name the teacher's ONNX file"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal ones only: errors are raised
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class of their own
        fault = f"{path} is not an ONNX model that onnxruntime {ort.__version__} runs: {_first_line(error)}"
        raise ConfigurationError([f"graft.toml: teacher.onnx: {fault}"]) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _tensor_spec(tensor: Any) -> TensorSpec:
    return TensorSpec(_DTYPES[tensor.type], tensor.shape[1] if len(tensor.shape) == 2 else 1)


def _input_faults(session: Any) -> list[str]:
    faults = []
    for tensor in session.get_inputs():
        where = f"graft.toml: teacher.onnx: input {tensor.name}"
        if tensor.type not in _DTYPES:
            faults.append(f"{where} has type {tensor.type}, allowed are {', '.join(_DTYPES)}")
        if not _is_row_shape(tensor.shape):
            faults.append(f"{where} has shape {tensor.shape}, allowed is {_ROW_SHAPES}")
    return faults


def _is_row_shape(shape: Sequence[Any]) -> bool:
    if len(shape) not in (1, 2) or isinstance(shape[0], int):
        return False
    return len(shape) == 1 or (isinstance(shape[1], int) and shape[1] >= 1)


def _task_faults(session: Any, tasks: Sequence[TeacherTask]) -> list[str]:
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    faults = []
    for i, task in enumerate(tasks):
        where = f"graft.toml: teacher.tasks.{i}"
        if task.name in [earlier.name for earlier in tasks[:i]]:
            faults.append(f"{where}.name: {task.name!r} stands for an earlier task already; names must differ")
        tensor = outputs.get(task.output)
        if tensor is None:
            faults.append(f"{where}.output: the teacher has no {task.output!r}, it has {', '.join(outputs)}")
        elif tensor.type not in ("tensor(float)", "tensor(double)", "tensor(float16)"):
            faults.append(f"{where}.output: {task.output!r} has type {tensor.type}, allowed is a float tensor")
        elif len(tensor.shape) > 2 or tensor.shape[1:] not in ([], [1]):
            faults.append(f"{where}.output: {task.output!r} has shape {tensor.shape}, allowed are [B] and [B, 1]")
    return faults


def _vector_faults(session: Any, vectors: Sequence[TeacherVector], taken: Sequence[str]) -> list[str]:
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    faults = []
    for i, vector in enumerate(vectors):
        where = f"graft.toml: teacher.vectors.{i}"
        if vector.name in [*taken, *(earlier.name for earlier in vectors[:i])]:
            faults.append(f"{where}.name: {vector.name!r} stands for another output already; names must differ")
        tensor = outputs.get(vector.output)
        if tensor is None:
            faults.append(f"{where}.output: the teacher has no {vector.output!r}, it has {', '.join(outputs)}")
        elif tensor.type not in ("tensor(float)", "tensor(double)", "tensor(float16)"):
            faults.append(f"{where}.output: {vector.output!r} has type {tensor.type}, allowed is a float tensor")
        elif len(tensor.shape) != 2 or not isinstance(tensor.shape[1], int):
            faults.append(f"{where}.output: {vector.output!r} has shape {tensor.shape}, allowed is [B, n], n fixed")
    return faults


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
