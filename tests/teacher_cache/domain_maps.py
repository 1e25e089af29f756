"""What the tests of the domain map have in common: tensors, features, a teacher of inputs alone."""

import numpy as np

from features.spec import Feature
from teacher_cache.config import TeacherConfig
from teacher_cache.teacher import TensorSpec
from tests.specs import spec_of

FLOAT = TensorSpec(np.dtype(np.float32), 1)
INT = TensorSpec(np.dtype(np.int64), 1)
TEXT = TensorSpec(np.dtype(object), 1)
FEATURES = (
    Feature(name="users:age", source="user", role="dense", dtype="int", default=0),
    Feature(name="users:job", source="user", role="categorical", dtype="str", default=""),
    Feature(name="items:vector", source="item", role="embedding", dtype="float_list", default=[0.0, 0.0]),
    Feature(name="items:year", source="item", role="dense", dtype="float", default=0.0),
)

SPEC = spec_of(*FEATURES)


class Signature:
    """A teacher of which only the inputs matter."""

    def __init__(self, inputs):
        self.inputs = inputs

    def score(self, inputs):
        raise NotImplementedError


def config_of(**inputs):
    task = {"name": "like", "kind": "binary", "output": "y"}
    return TeacherConfig.model_validate({"version": "t1", "onnx": "t.onnx", "tasks": [task], "inputs": inputs})
