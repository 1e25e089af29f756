"""What an ONNX file takes and gives, before there is a project; for `graft init` and `graft look`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from teacher_cache.kinds.computed_teacher import ComputedTeacher, is_float, is_task_shape, is_vector_shape
from teacher_cache.kinds.onnx_teacher import OnnxModel
from teacher_cache.teacher import TensorSpec


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
