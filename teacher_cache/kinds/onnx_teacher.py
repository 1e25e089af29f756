"""A teacher in an ONNX file; what such a file takes and gives, before there is a project."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.errors import ConfigurationError, first_line
from teacher_cache.config import TeacherTask, TeacherVector
from teacher_cache.kinds.computed_teacher import ComputedTeacher, Tensor, is_float, is_task_shape, is_vector_shape
from teacher_cache.kinds.onnx_weights import weight_files
from teacher_cache.teacher import TensorSpec

# Before its import, at which it writes a device's number into the home folder, to report on what it computes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

_KEY = "teacher.onnx"
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(string)": np.dtype(object),
}


def open_onnx(path: Path, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()) -> ComputedTeacher:
    """The teacher in the file, on one CPU thread. ConfigurationError names all that does not fit tasks and vectors.

    No custom operators are loaded; external weights outside the folder of the file are refused.
    """
    return ComputedTeacher(OnnxModel(path), tasks, vectors)


class OnnxModel:
    """See `computed_teacher.Model`."""

    key = _KEY
    types: Sequence[str] = tuple(_DTYPES)
    advice = "export the teacher with a dynamic batch axis"

    def __init__(self, path: Path) -> None:
        self._session = _open_session(path)
        self.inputs = [_tensor(one) for one in self._session.get_inputs()]
        self.outputs = [_tensor(one) for one in self._session.get_outputs()]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """See `computed_teacher.Model.run`."""
        found: list[NDArray[Any]] = self._session.run(list(outputs), dict(feeds))
        return found


def _open_session(path: Path) -> Any:
    if not path.is_file():
        raise ConfigurationError([f"graft.toml: {_KEY}: {path} is no file; name the teacher's ONNX file"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal ones only: errors are raised
    try:
        names = weight_files(path)
        # onnxruntime would map these files, and see what is written over them later
        weights = [(path.parent / name).read_bytes() for name in names]
        if names:
            options.add_external_initializers_from_files_in_memory(names, weights, list(map(len, weights)))
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class of their own
        fault = f"{path} is not an ONNX model that onnxruntime {ort.__version__} runs: {first_line(error)}"
        raise ConfigurationError([f"graft.toml: {_KEY}: {fault}"]) from error


def _tensor(told: Any) -> Tensor:
    return Tensor(told.name, told.type, _DTYPES.get(told.type), tuple(told.shape))


class Signature(NamedTuple):
    """The inputs by name; the outputs that may be tasks; the widths of those that may be vectors.

    `unusable`: the other outputs, with their type and shape.
    """

    inputs: Mapping[str, TensorSpec]
    tasks: list[str]
    vectors: Mapping[str, int]
    unusable: Mapping[str, str]


def read_signature(path: Path) -> Signature:
    """The signature of a teacher; ConfigurationError with every reason why it cannot be one."""
    model = OnnxModel(path)
    inputs = ComputedTeacher(model, ()).inputs
    tasks, vectors, unusable = [], {}, {}
    for tensor in model.outputs:
        width = tensor.shape[1] if is_vector_shape(tensor) else None
        if is_float(tensor) and is_task_shape(tensor):
            tasks.append(tensor.name)
        elif is_float(tensor) and isinstance(width, int):
            vectors[tensor.name] = width
        else:
            unusable[tensor.name] = f"{tensor.type} of shape {list(tensor.shape)}"
    free = [tensor.name for tensor in model.outputs if tensor.name in tasks and not isinstance(tensor.shape[0], int)]
    if free:  # what has a fixed number of rows beside them is a constant, such as the model's number
        unusable |= {name: "a fixed number of rows" for name in tasks if name not in free}
    return Signature(inputs, free or tasks, vectors, unusable)
