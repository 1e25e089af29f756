"""A small real teacher and the target features that feed it, by hand."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from features.spec import Feature, FeatureSpec
from stream.events import TeacherRequest
from teacher_cache import batch_scorer
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher
from tests.specs import spec_of

Tensors = dict[str, tuple[int, list[Any]]]

INPUTS: Tensors = {
    "age_code": (TensorProto.INT64, ["B"]),
    "taste": (TensorProto.FLOAT, ["B", 3]),
    "year": (TensorProto.FLOAT, ["B", 1]),
    "source_user": (TensorProto.INT64, ["B"]),
}
OUTPUTS: Tensors = {"finish_logit": (TensorProto.FLOAT, ["B", 1]), "rating_value": (TensorProto.FLOAT, ["B"])}
# The task finish is the sum of the age's code and the tastes, rating is the year over the user's number.
NODES = [
    helper.make_node("Cast", ["age_code"], ["age"], to=TensorProto.FLOAT),
    helper.make_node("Cast", ["source_user"], ["user"], to=TensorProto.FLOAT),
    helper.make_node("Constant", [], ["elements"], value_ints=[1]),
    helper.make_node("Constant", [], ["column"], value_ints=[-1, 1]),
    helper.make_node("Constant", [], ["flat"], value_ints=[-1]),
    helper.make_node("ReduceSum", ["taste", "elements"], ["taste_sum"], keepdims=1),
    helper.make_node("Reshape", ["age", "column"], ["age_column"]),
    helper.make_node("Add", ["age_column", "taste_sum"], ["finish_logit"]),
    helper.make_node("Reshape", ["year", "flat"], ["year_flat"]),
    helper.make_node("Div", ["year_flat", "user"], ["rating_value"]),
]
TASKS = [
    {"name": "finish", "kind": "binary", "output": "finish_logit"},
    {"name": "rating", "kind": "regression", "output": "rating_value"},
]
CONFIG: dict[str, Any] = {
    "version": "t1",
    "onnx": "teacher.onnx",
    "tasks": TASKS,
    "inputs": {
        "age_code": {
            "kind": "bucket",
            "feature": "users:age",
            "boundaries": [18, 25],
            "codes": [1, 18, 25],
            "default": 7,
        },
        "taste": {"kind": "feature", "feature": "items:vector", "default": 0.0},
        "year": {"kind": "linear", "feature": "items:year", "multiply": 2.0, "add": -1.0, "default": 8.0},
        "source_user": {"kind": "default", "default": 2},
    },
}


@pytest.fixture(autouse=True)
def _quick_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_scorer, "EVERY_SECONDS", 0.02)


def _stored(source: Any, name: str, role: Any, dtype: Any, default: Any, value_type: str) -> Feature:
    """A feature `view:feature` that Feast stores."""
    view, feature = name.split(":")
    return Feature(
        name=name,
        source=source,
        role=role,
        dtype=dtype,
        default=default,
        view=view,
        feature=feature,
        value_type=value_type,
    )


FEATURES = (
    _stored("user", "users:age", "dense", "int", 0, "INT64"),
    _stored("user", "users:job", "categorical", "str", "", "STRING"),
    _stored("item", "items:vector", "embedding", "float_list", [0.0, 0.0, 0.0], "FLOAT_LIST"),
    _stored("item", "items:year", "dense", "float", 0.0, "FLOAT"),
    Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
)


def save_teacher(
    folder: Path, inputs: Tensors = INPUTS, outputs: Tensors = OUTPUTS, nodes: Any = NODES, opset: int = 17
) -> Path:
    """Write a graph as teacher.onnx in `folder`."""

    def info(tensors: Tensors) -> list[Any]:
        return [helper.make_tensor_value_info(name, *tensor) for name, tensor in tensors.items()]

    graph = helper.make_graph(nodes, "teacher", info(inputs), info(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path = folder / "teacher.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def spec() -> FeatureSpec:
    """Five target features: an int, a str, a list of three floats, a float and the item's id."""
    return spec_of(*FEATURES)


@pytest.fixture
def save_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph as tmp_path/teacher.onnx: by default the one of INPUTS, NODES and OUTPUTS."""

    return partial(save_teacher, tmp_path)


@pytest.fixture
def config() -> TeacherConfig:
    """The teacher of `save_onnx()` fed by the features of `spec`."""
    return TeacherConfig.model_validate(CONFIG)


@pytest.fixture
def teacher(save_onnx: Callable[..., Path], config: TeacherConfig, tmp_path: Path) -> Teacher:
    """finish = age_code + sum(taste), rating = year / source_user."""
    save_onnx()
    return load_teacher(config, tmp_path)


@pytest.fixture
def domain_map(config: TeacherConfig, tmp_path: Path, teacher: Teacher, spec: FeatureSpec) -> DomainMap:
    """The map of `config`."""
    return DomainMap(config, tmp_path, teacher, spec)


@pytest.fixture
def scorer(teacher: Teacher, domain_map: DomainMap, spec: FeatureSpec) -> RequestScorer:
    """The teacher behind its map."""
    return RequestScorer(teacher, domain_map, spec)


@pytest.fixture
def request_of(spec: FeatureSpec) -> Callable[..., TeacherRequest]:
    """Makes the teacher request number n: age 20 (code 18), vector [n, 0, 0], year 5: finish 18 + n, rating 4.5."""

    def make(n: int, *, user_id: int | str = 1, item_id: int | str | None = None, **changes: Any) -> TeacherRequest:
        values: dict[str, Any] = {
            "impression_id": f"imp-{n}",
            "user_id": user_id,
            "item_id": n if item_id is None else item_id,
            "event_time_ms": 1000 + n,
            "context": {},
            "spec_id": spec.spec_id,
            "features": [20, "nurse", [float(n), 0.0, 0.0], 5.0, n],
        }
        return TeacherRequest.model_validate(values | changes)

    return make
