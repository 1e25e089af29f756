"""`graft check` finds the faults of all tables together, and none that only follows from another."""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError

_PROJECT = """
name = "tiny"

[[tasks]]
name = "like"
kind = "binary"
window_seconds = 60

[[tasks]]
name = "rating"
kind = "regression"
window_seconds = 60
served = true
teacher_reference = "stars"

[stream]
partitions = 4

[features]
service = "ranking"
dense = ["users:age"]
categorical = ["user_id", "item_id", "context:device"]
passthrough = ["users:town"]
[features.context]
device = {dtype = "str", default = "phone"}
[features.defaults]
"users:town" = "nowhere"

[teacher]
version = "t1"
onnx = "teacher.onnx"
ttl_seconds = 100
[[teacher.tasks]]
name = "like"
kind = "binary"
output = "logit"
[[teacher.tasks]]
name = "stars"
kind = "regression"
output = "stars"
[teacher.inputs.age]
kind = "bucket"
feature = "users:age"
boundaries = [20, 40]
codes = [0, 1, 2]
default = 0
[teacher.inputs.device]
kind = "lookup"
feature = "context:device"
table = {phone = 1}
default = 0
[teacher.inputs.history]
kind = "default"
default = 0.0

[[distillation]]
teacher_task = "like"
student_task = "like"
weight = 100

[student]
trunk = [8]
micro_batch = 16

[bootstrap]
rows = 1000

[publish]
keep = 10
"""

FAULTS = {
    "unknown table": ('name = "tiny"', 'name = "tiny"\nstraem = 1'),
    "project name": ('name = "tiny"', 'name = "Tiny!"'),
    "negative window": ("window_seconds = 60", "window_seconds = -60"),
    "misspelt window": ("window_seconds = 60\nserved", "window_secs = 60\nserved"),
    "unknown kind": ('kind = "regression"\nwindow', 'kind = "regresion"\nwindow'),
    "task name": ('name = "like"\nkind = "binary"\nwindow', 'name = "Like"\nkind = "binary"\nwindow'),
    "unknown reference": ('teacher_reference = "stars"', 'teacher_reference = "moons"'),
    "reference of another kind": ('teacher_reference = "stars"', 'teacher_reference = "like"'),
    "partitions": ("partitions = 4", "partitions = 0"),
    "unknown feature": ('"users:age"]', '"users:aeg"]'),
    "unknown view": ('"users:town"]', '"users:town", "cars:speed"]'),
    "a list that is none": ('dense = ["users:age"]', 'dense = "users:age"'),
    "unknown service": ('service = "ranking"', 'service = "rankin"'),
    "misspelt service": ('service = "ranking"', 'sevrice = "ranking"'),
    "context type": ('dtype = "str"', 'dtype = "text"'),
    "default of no feature": ('"users:town" = "nowhere"', '"users:town" = "nowhere"\n"users:size" = 1'),
    "default of another type": ('"users:town" = "nowhere"', '"users:town" = 7'),
    "teacher version": ('version = "t1"', 'version = "t 1"'),
    "teacher file": ("teacher.onnx", "taecher.onnx"),
    "misspelt key of the teacher": ("ttl_seconds", "tll_seconds"),
    "teacher output": ('output = "logit"', 'output = "lgoit"'),
    "teacher task kind": ('kind = "regression"\noutput', 'kind = "number"\noutput'),
    "unknown input": ("[teacher.inputs.history]", "[teacher.inputs.histroy]"),
    "kind of input": ('kind = "default"', 'kind = "defualt"'),
    "input without feature": ('feature = "context:device"\n', ""),
    "unknown feature of an input": ('feature = "context:device"', 'feature = "context:place"'),
    "boundaries": ("boundaries = [20, 40]", "boundaries = [40, 20]"),
    "unknown teacher task": ('teacher_task = "like"', 'teacher_task = "love"'),
    "unknown student task": ('student_task = "like"', 'student_task = "share"'),
    "negative weight": ("weight = 100", "weight = -1"),
    "misspelt weight": ("weight = 100", "wieght = 100"),
    "removed half-life": ("weight = 100", "half_life_examples = 100"),
    "removed table": ("[bootstrap]", "[unshown]\nratio = 1\n\n[bootstrap]"),
    "misspelt key of the student": ("micro_batch = 16", "micro_bacth = 16"),
    "removed key": ("micro_batch = 16", "micro_batch = 16\nreplay_batches = 2"),
    "student": ("trunk = [8]", "trunk = []"),
    "bootstrap": ("rows = 1000", "rows = 1"),
    "publish": ("keep = 10", "kep = 10"),
}
STORE = "project: tiny\nprovider: local\nregistry: data/registry.db\nonline_store: {type: redis}\n"
DEFINITIONS = """
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
users = FeatureView(
    name="users",
    entities=[user],
    schema=[Field(name="age", dtype=Float32), Field(name="town", dtype=String)],
    source=FileSource(path="data/users.parquet", timestamp_field="event_timestamp"),
)
ranking = FeatureService(name="ranking", features=[users])
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Checks the project with the named faults planted; the faults found, the folder left out."""
    import onnx  # noqa: PLC0415 - only these tests need it
    from onnx import TensorProto, helper  # noqa: PLC0415

    from features.repo import store  # noqa: PLC0415 - only these tests pay for Feast
    from graft.check import check_project  # noqa: PLC0415

    for slow in ("_parse", "_repo_config"):  # the repository is the same in all of the 700 checks
        monkeypatch.setattr(store, slow, cache(getattr(store, slow)))
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "feature_store.yaml").write_text(STORE + "entity_key_serialization_version: 3\n")
    (tmp_path / "feature_repo" / "definitions.py").write_text(DEFINITIONS)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in ("age", "device", "history")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in ("logit", "stars")]
    nodes = [helper.make_node("Add", ["age", "history"], ["logit"]), helper.make_node("Neg", ["device"], ["stars"])]
    graph = helper.make_graph(nodes, "t", inputs, outputs)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "teacher.onnx"
    )

    def checked(*names: str) -> set[str]:
        text = _PROJECT
        for name in names:
            old, new = FAULTS[name]
            assert old in text, names
            text = text.replace(old, new, 1)
        (tmp_path / "graft.toml").write_text(text)
        try:
            check_project(tmp_path, "redis://localhost:6379/0")
        except ConfigurationError as error:
            faults = error.faults
        else:
            faults = ()
        assert len(set(faults)) == len(faults), "each is told once"
        return {fault.partition(", ")[0] for fault in faults}  # without what there is, which may change

    return checked


def test_the_sound_project_has_no_fault_and_each_planted_one_is_found(check: Callable[..., set[str]]) -> None:
    assert check() == set()
    for name in FAULTS:
        assert check(name), name


def test_faults_of_four_tables_come_out_in_one_round(check: Callable[..., set[str]], tmp_path: Path) -> None:
    faults = check("misspelt key of the student", "unknown feature", "teacher file", "negative window")
    assert faults == {
        "graft.toml: student.micro_bacth: no such key; did you mean micro_batch?",
        "graft.toml: features.dense: no feature of view 'users' 'aeg'; there is age",
        f"graft.toml: teacher.onnx: {tmp_path / 'taecher.onnx'} is no file; name the teacher's ONNX file",
        "graft.toml: tasks.0.window_seconds: must be > 0",
    }


def test_of_any_two_faults_nothing_follows(check: Callable[..., set[str]]) -> None:
    alone = {name: check(name) for name in FAULTS}
    wrong = []
    for one, other in combinations(FAULTS, 2):
        if _apart(one, other) and {one, other} != {"unknown input", "kind of input"}:  # one renames the other's key
            faults = check(one, other)
            if not faults or faults - alone[one] - alone[other]:
                wrong.append((one, other, faults - alone[one] - alone[other]))
    assert wrong == []


def _apart(one: str, other: str) -> bool:
    """Whether both can be planted: neither changes what the other one looks for."""
    (old, new), (old_other, new_other) = FAULTS[one], FAULTS[other]
    return old_other in _PROJECT.replace(old, new, 1) and old in _PROJECT.replace(old_other, new_other, 1)
