"""The contract of a teacher: the same for each kind, but for rows that it does not know, which a dump may lack."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import ConfigurationError
from teacher_cache.cache.generation import differences, generation_of
from teacher_cache.config import TeacherConfig
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher, TeacherOutputError, TensorSpec
from tests.specs import spec_of
from tests.teacher_cache.kinds import BAD_ITEM, ITEMS, KINDS, LIKE_UI, RATING_UI, USERS, VECTOR_IW, teacher_table

pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def table(kind: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with teacher_table(kind, tmp_path) as found:
        yield found


@pytest.fixture
def teacher(table: dict[str, Any], tmp_path: Path) -> Teacher:
    return load_teacher(TeacherConfig.model_validate(table), tmp_path)


def _rows(count: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {"user": random.integers(0, USERS, count), "item": random.integers(0, BAD_ITEM, count)}


def test_the_signature_is_the_models(teacher: Teacher) -> None:
    integer = TensorSpec(np.dtype(np.int64), 1)
    assert dict(teacher.inputs) == {"user": integer, "item": integer}
    assert dict(teacher.outputs) == {"like": (), "stars": (), "taste": (3,)}


@pytest.mark.parametrize("count", [1, 2, 3, 1024, 2500])
def test_logits_come_for_each_row_in_the_order_of_the_tasks(teacher: Teacher, count: int) -> None:
    rows = _rows(count)
    logit_BT = teacher.score(rows)
    assert (logit_BT.dtype, logit_BT.shape) == (np.float32, (count, 2))
    expected_BT = np.stack([LIKE_UI[rows["user"], rows["item"]], RATING_UI[rows["user"], rows["item"]]], axis=1)
    assert logit_BT.tobytes() == expected_BT.tobytes()


def test_vectors_come_beside_the_logits(teacher: Teacher) -> None:
    rows = _rows(300)
    found = teacher.describe(rows)
    assert found.keys() == {"like", "stars", "taste"}
    assert np.stack([found["like"], found["stars"]], axis=1).tobytes() == teacher.score(rows).tobytes()
    assert found["taste"].dtype == np.float32
    assert found["taste"].tolist() == VECTOR_IW[rows["item"]].tolist()


def test_a_constant_that_is_stretched_over_the_rows_is_taken(teacher: Teacher) -> None:
    rows = {"user": np.broadcast_to(np.int64(3), (5,)), "item": np.arange(5)}
    assert teacher.score(rows)[:, 0].tolist() == LIKE_UI[3, :5].tolist()


def test_rows_that_it_does_not_know_are_set_apart_and_the_others_scored(teacher: Teacher, kind: str) -> None:
    rows = {"user": np.array([0, 0, 4, 0, 1]), "item": np.array([1, 10**6, 2, ITEMS * USERS, 3])}
    if kind == "dump":
        assert np.isnan(teacher.score(rows)).all(axis=1).tolist() == [False, True, False, True, False]
        return
    with pytest.raises(TeacherOutputError, match=r"cannot compute row 1 \(2 of 5 rows\)") as refused:
        teacher.score(rows)
    assert refused.value.rows == (1, 3)
    others = {name: np.delete(values, [1, 3]) for name, values in rows.items()}
    assert teacher.score(others)[:, 0].tolist() == [LIKE_UI[0, 1], LIKE_UI[4, 2], LIKE_UI[1, 3]]


def test_rows_whose_output_is_not_finite_give_no_logit(teacher: Teacher, kind: str) -> None:
    rows = {"user": np.array([1, 2, 3]), "item": np.array([0, BAD_ITEM, 5])}
    if kind == "dump":
        assert np.isnan(teacher.score(rows)).any(axis=1).tolist() == [False, True, False]
        return
    with pytest.raises(TeacherOutputError, match=r"teacher task stars: output of row 1 is (inf|nan)") as refused:
        teacher.score(rows)
    assert refused.value.rows == (1,)


def test_a_missing_output_and_doubled_names_are_told_at_once(table: dict[str, Any], tmp_path: Path) -> None:
    tasks = [*table["tasks"], {"name": "like", "kind": "binary", "output": "lkie"}]
    changed = {**table, "tasks": tasks, "vectors": [{"name": "stars", "output": "item_vectro"}]}
    with pytest.raises(ConfigurationError) as error:
        load_teacher(TeacherConfig.model_validate(changed), tmp_path)
    told = "\n".join(error.value.faults)
    assert "graft.toml: teacher.tasks.2.name: 'like' stands for an earlier task already" in told
    assert "graft.toml: teacher.vectors.0.name: 'stars' stands for another output already" in told
    for key, name in (("tasks.2", "lkie"), ("vectors.0", "item_vectro")):
        assert any(f"teacher.{key}.output" in fault and f"'{name}'" in fault for fault in error.value.faults), told


def test_the_generation_is_the_same_each_time_and_another_for_another_task_list(
    table: dict[str, Any], tmp_path: Path
) -> None:
    first, again = (generation_of("p", TeacherConfig.model_validate(table), tmp_path, spec_of()) for _ in range(2))
    assert first.digest == again.digest
    swapped = {**table, "tasks": table["tasks"][::-1]}
    other = generation_of("p", TeacherConfig.model_validate(swapped), tmp_path, spec_of())
    assert other.digest != first.digest
    assert any(line.startswith("tasks.0.name") for line in differences(first, other))


def test_a_file_in_the_place_of_the_teacher_that_is_none_is_refused(
    table: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    if kind.startswith("server"):
        pytest.skip("a server is no file")
    for path in [one for one in tmp_path.rglob("*") if one.is_file()]:
        path.write_bytes(b"PK\x03\x04 odd bytes \x00\xff")
    with pytest.raises(ConfigurationError, match=rf"^graft.toml: teacher\.{kind}.*(teacher|all)\.\w+"):
        load_teacher(TeacherConfig.model_validate(table), tmp_path)
