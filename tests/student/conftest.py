"""A toy pair for the learner's tests: two users' worth of features, three tasks, a teacher of three tasks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.spec import Feature, FeatureSpec
from stream.events import Example
from stream.tasks import TaskSpec
from student.learn.config import DistillationConfig
from student.learn.learner import Learner
from student.learn.setup import LearnerSetup
from student.versions.manifest import StudentConfig
from student.versions.registry import Registry
from teacher_cache.config import TeacherTask


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _feature(name: str, role: Any, dtype: Any, default: Any, source: Any = "user") -> Feature:
    return Feature(name=name, source=source, role=role, dtype=dtype, default=default)


class Toy:
    """Builders; what they build depends on their arguments alone."""

    spec = FeatureSpec(
        feast_project="toy",
        user_join_key="u",
        item_join_key="i",
        user_id_type="int",
        item_id_type="str",
        entity_key_serialization_version=3,
        features=(
            _feature("age", "dense", "int", 30),
            _feature("user_id", "categorical", "int", None, "user_id"),
            _feature("taste", "embedding", "float_list", [0.0, 0.0]),
            _feature("item_id", "categorical", "str", None, "item_id"),
            _feature("mean", "dense", "float", 0.0, "item"),
        ),
    )
    tasks = (
        TaskSpec(name="like", kind="binary", window_seconds=60),
        TaskSpec(name="hidden", kind="binary", window_seconds=60, served=False),
        TaskSpec(name="rating", kind="regression", window_seconds=60),
    )
    teacher_tasks = (
        TeacherTask(name="finish", kind="binary", output="a"),
        TeacherTask(name="like", kind="binary", output="b"),
        TeacherTask(name="rating", kind="regression", output="c"),
    )
    distillation = (
        DistillationConfig(teacher_task="like", student_task="like", gradient_scale=2.0),
        DistillationConfig(teacher_task="rating", student_task="rating"),
    )
    student = StudentConfig(
        trunk=[8, 4],
        cross_layers=1,
        tower=4,
        embedding_dim=3,
        table_rows=64,
        micro_batch=8,
        replay_batches=2,
        replay_capacity=50,
    )

    def setup(self, **changes: Any) -> LearnerSetup:
        parts = {name: getattr(self, name) for name in ("spec", "tasks", "distillation", "teacher_tasks", "student")}
        parts["wait_seconds"] = 3.0
        return LearnerSetup(**{**parts, **changes})

    def example(self, number: int) -> Example:
        random = np.random.default_rng(number)
        user, item = int(random.integers(20)), f"i{random.integers(30)}"
        rating = float(random.integers(1, 6))
        taste = None if number % 5 == 0 else random.standard_normal(2).round(3).tolist()
        return Example(
            impression_id=f"m{number}",
            user_id=user,
            item_id=item,
            event_time_ms=1_000_000 + 1000 * number,
            context={},
            spec_id=self.spec.spec_id,
            features=[20 + user, user, taste, item, float(random.random())],
            labels={
                "like": float(rating >= 4),
                "hidden": float(rating == 5),
                "rating": None if number % 7 == 0 else rating,
            },
        )

    def batches(self, count: int, size: int = 8, first: int = 0) -> list[list[Example]]:
        starts = range(first, first + count * size, size)
        return [[self.example(number) for number in range(start, start + size)] for start in starts]

    def logits(self, examples: list[Example], *, misses: bool = True) -> NDArray[np.float32]:
        """Three logits per example, the same for the same pair; every third pair is a miss."""
        rows = []
        for example in examples:
            key = int(example.user_id) * 100 + int(str(example.item_id)[1:])
            random = np.random.default_rng(key)
            rows.append(np.full(3, np.nan) if misses and key % 3 == 0 else random.standard_normal(3))
        return np.array(rows, np.float32)

    def learnt(self, learner: Learner, batches: list[list[Example]]) -> Learner:
        for batch in batches:
            learner.learn(batch, self.logits(batch))
        return learner


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "versions")


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def equal() -> Callable[[dict[str, NDArray[Any]], dict[str, NDArray[Any]]], None]:
    """Asserts that two states are equal bit for bit, and names the first tensor that is not."""

    def check(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> None:
        assert left.keys() == right.keys()
        for name, tensor in left.items():
            assert tensor.dtype == right[name].dtype, name
            assert tensor.tobytes() == right[name].tobytes(), name

    return check
