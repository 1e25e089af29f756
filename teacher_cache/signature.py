"""What an ONNX file takes and gives, before there is a project; for `graft init` and `graft look`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnxruntime as ort

from teacher_cache.teacher import OnnxTeacher, TensorSpec

_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


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
    inputs = OnnxTeacher(path, ()).inputs
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tasks, vectors, unusable = [], {}, {}
    for tensor in session.get_outputs():
        shape = list(tensor.shape or [])
        if tensor.type in _FLOATS and len(shape) in (1, 2) and shape[1:] in ([], [1]):
            tasks.append(tensor.name)
        elif tensor.type in _FLOATS and len(shape) == 2 and isinstance(shape[1], int):
            vectors[tensor.name] = shape[1]
        else:
            unusable[tensor.name] = f"{tensor.type} of shape {shape}"
    return Signature(inputs, tasks, vectors, unusable)
