"""A small sound project that the tests of check and of the command line break."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

_PROJECT = """
name = "tiny"

[[tasks]]
name = "like"
kind = "binary"
window_seconds = 60

[features]
service = "ranking"
dense = ["users:age"]
categorical = ["user_id", "item_id"]

[teacher]
version = "t1"
onnx = "teacher.onnx"
tasks = [{name = "like", kind = "binary", output = "logit"}]
[teacher.inputs.age]
kind = "feature"
feature = "users:age"
default = 30
[teacher.inputs.history]
kind = "default"
default = 0.0

[[distillation]]
teacher_task = "like"
student_task = "like"
gradient_scale = 2
"""
_STORE = """
project: tiny
provider: local
registry: data/registry.db
online_store: {type: redis, connection_string: "localhost:6379"}
entity_key_serialization_version: 3
"""
_DEFINITIONS = """
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
users = FeatureView(
    name="users",
    entities=[user],
    schema=[Field(name="age", dtype=Float32)],
    source=FileSource(path="data/users.parquet", timestamp_field="event_timestamp"),
)
ranking = FeatureService(name="ranking", features=[users])
"""


@pytest.fixture
def sound_project(tmp_path: Path) -> Path:
    """A folder in which `graft check` finds no fault."""
    folder = tmp_path / "tiny"
    (folder / "feature_repo").mkdir(parents=True)
    (folder / "graft.toml").write_text(_PROJECT)
    (folder / "feature_repo" / "feature_store.yaml").write_text(_STORE)
    (folder / "feature_repo" / "definitions.py").write_text(_DEFINITIONS)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in ("age", "history")]
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])]
    graph = helper.make_graph([helper.make_node("Add", ["age", "history"], ["logit"])], "t", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "teacher.onnx")
    return folder
