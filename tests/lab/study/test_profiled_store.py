"""Profiles in a study: those of the batch scorer, and never before they could be known."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, save

from features.spec import Feature, FeatureSpec
from graft.project import Project
from lab.study.grid import TeacherChange
from lab.study.learners.teachers import ChangedProfiles, ids_of
from lab.study.log.memory_store import MemoryStore, ProfiledStore, Sources, open_store
from lab.study.log.study_log import StudyLog
from stream.events import Example
from stream.log.examples import ExampleRecord

PROJECT = {
    "name": "p",
    "tasks": [{"name": "like", "kind": "binary", "window_seconds": 10}],
    "features": {
        "service": "s",
        "profiles": [
            {"entity": "item", "push_source": "item_taught_push", "references": 2, "columns": {"like": "like"}},
            {"entity": "user", "push_source": "user_taught_push", "references": 2, "columns": {"like": "like"}},
        ],
    },
    "teacher": {
        "version": "t",
        "onnx": "teacher.onnx",
        "tasks": [{"name": "like", "kind": "binary", "output": "logit"}],
        "inputs": {
            "age": {"kind": "feature", "feature": "users:age", "default": 0.0},
            "price": {"kind": "feature", "feature": "items:price", "default": 9.0},
        },
    },
}


def feature(name: str, source: str, **changes: str) -> Feature:
    view, _, column = name.partition(":")
    return Feature.model_validate(
        {
            "name": name,
            "source": source,
            "role": "dense",
            "dtype": "float",
            "default": 0.0,
            "view": view,
            "feature": column,
            "value_type": "FLOAT",
            **changes,
        }
    )


SPEC = FeatureSpec(
    feast_project="p",
    user_join_key="user_id",
    item_join_key="item_id",
    user_id_type="int",
    item_id_type="str",
    entity_key_serialization_version=3,
    features=(
        feature("users:age", "user"),
        feature("items:price", "item"),
        feature("item_taught:like", "item", profile_of="like"),
        feature("user_taught:like", "user", profile_of="like"),
    ),
)


class Place(NamedTuple):
    project: Project
    sources: Sources


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The teacher's logit is age + price; users 1 and 2 are 10 and 30, items a and b cost 1 and 2."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in ("age", "price")]
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])]
    graph = helper.make_graph([helper.make_node("Add", ["age", "price"], ["logit"])], "t", inputs, outputs)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "teacher.onnx")
    first = np.array([0, 0], "datetime64[us]")
    users = {"user_id": pa.array([1, 2], pa.int64()), "age": [10.0, 30.0], "at": first}
    items = {"item_id": ["a", "b"], "price": [1.0, 2.0], "at": first}
    for name, columns in (("users", users), ("items", items)):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    tables = {
        "users": (tmp_path / "users.parquet", "user_id", "at"),
        "items": (tmp_path / "items.parquet", "item_id", "at"),
    }
    sources = Sources(tables, {"item_taught_push": "item_taught", "user_taught_push": "user_taught"})
    return Place(Project.model_validate({**PROJECT, "folder": tmp_path}), sources)


@pytest.fixture
def store(place: Place) -> ProfiledStore:
    found = open_store(place.project, SPEC, place.sources)
    assert isinstance(found, ProfiledStore)
    return found


def profiles(store: ProfiledStore, user: int, item: str, time_ms: int) -> tuple[object, object]:
    columns = store.read_at([user], [item], [{}], [time_ms])
    assert list(columns) == [f.name for f in SPEC.features]
    return columns["item_taught:like"][0], columns["user_taught:like"][0]


def test_ids_of_the_tables_have_their_profiles_from_the_first_impression_on(store: ProfiledStore) -> None:
    assert profiles(store, 2, "b", 1_000) == ((10 + 30) / 2 + 2, 30 + (1 + 2) / 2)


def test_another_id_has_its_profile_after_the_batch_scorers_next_pass(store: ProfiledStore) -> None:
    assert profiles(store, 7, "z", 1_000) == (None, None)
    assert profiles(store, 7, "z", 1_999) == (None, None)
    assert profiles(store, 7, "z", 2_000) == ((10 + 30) / 2 + 9, 0 + (1 + 2) / 2)


def test_many_rows_are_read_as_each_alone(store: ProfiledStore) -> None:
    columns = store.read([1, 2, 2], ["a", "a", "b"], [{}] * 3)
    assert columns["item_taught:like"] == [21.0, 21.0, 22.0]
    assert columns["user_taught:like"] == [11.5, 31.5, 31.5]


def test_before_the_first_impression_no_row_of_later_is_read(place: Place) -> None:
    path, *_ = place.sources.tables["items"]
    days = np.array([0, 0, 86_400_000_000], "datetime64[us]")
    pq.write_table(pa.table({"item_id": ["a", "b", "a"], "price": [1.0, 2.0, 100.0], "at": days}), path)
    columns = open_store(place.project, SPEC, place.sources, now_ms=1_000).read([1], ["a"], [{}])
    assert columns["items:price"] == [1.0]
    assert columns["item_taught:like"] == [(10 + 30) / 2 + 1]


def test_a_project_without_profiles_has_the_plain_store() -> None:
    features = {"service": "s"}
    project = Project.model_validate({**PROJECT, "features": features, "folder": Path()})
    assert isinstance(open_store(project, SPEC, Sources({}, {})), MemoryStore)


def _log(store: ProfiledStore) -> StudyLog:
    rows = [(1, "a"), (2, "b"), (2, "a"), (1, "b"), (7, "a")]
    records = []
    for n, (user, item) in enumerate(rows):
        (row,) = SPEC.rows_of(store.read_at([user], [item], [{}], [n * 1_000]))
        example = Example(
            impression_id=str(n),
            user_id=user,
            item_id=item,
            event_time_ms=n * 1_000,
            context={},
            spec_id=SPEC.spec_id,
            features=row,
            labels={"like": 1.0},
        )
        records.append(ExampleRecord(0, n, example))
    return StudyLog(SPEC, records)


def _profiles_of(log: StudyLog, change: TeacherChange, place: Place) -> dict[str, list[object]]:
    profiles = ChangedProfiles(change, place.project, SPEC, place.sources, ids_of(log, [], []))
    columns = SPEC.columns_of([example.features for example in profiles.of_log(log).examples])
    assert columns["users:age"] == [10.0, 30.0, 30.0, 10.0, None], "only profiles are changed"
    return {name: columns[name] for name in ("item_taught:like", "user_taught:like")}


def test_a_changed_teachers_profiles_take_the_place_of_the_logs(place: Place, store: ProfiledStore) -> None:
    log = _log(store)
    own = _profiles_of(log, TeacherChange(), place)
    assert own == {"item_taught:like": [21, 22, 21, 22, 21], "user_taught:like": [11.5, 31.5, 31.5, 11.5, None]}
    blind = _profiles_of(log, TeacherChange(defaulted=["age"]), place)
    assert blind["item_taught:like"] == [1, 2, 1, 2, 1]


def test_permuted_profiles_are_those_of_other_ids_wherever_the_id_comes(place: Place, store: ProfiledStore) -> None:
    permuted = _profiles_of(_log(store), TeacherChange(permuted=True), place)
    assert sorted(set(permuted["item_taught:like"])) == [21, 22]
    assert len(set(permuted["item_taught:like"][::2])) == 1, "item a has one profile"
