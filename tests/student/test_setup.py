"""A learner's parts are checked as a whole, with every fault at once."""

from typing import Any

import pytest

from graft.errors import ConfigurationError
from stream.tasks import TaskSpec
from student.config import DistillationConfig


def test_every_fault_is_reported_at_once(toy: Any) -> None:
    heads = (
        DistillationConfig(teacher_task="watch"),
        DistillationConfig(teacher_task="like", student_task="likes"),
        DistillationConfig(teacher_task="like"),
    )
    tasks = (*toy.tasks, TaskSpec(name="x", kind="binary", window_seconds=1, teacher_reference="rating"))
    with pytest.raises(ConfigurationError) as error:
        toy.setup(distillation=heads, tasks=tasks)
    assert error.value.faults == (
        "distillation.0.teacher_task: must be one of finish, like, rating, got 'watch'",
        "distillation.1.student_task: must be one of hidden, like, rating, x, got 'likes'",
        "distillation: each teacher task may be distilled once, got like more often",
        "tasks.3.teacher_reference: must be a binary teacher task (finish, like), got 'rating'",
    )


def test_the_teachers_reference_is_the_twin_unless_named(toy: Any) -> None:
    hidden = toy.tasks[1].model_copy(update={"teacher_reference": "like"})
    assert toy.setup().reference_columns == (1, None, 2)
    assert toy.setup(tasks=(toy.tasks[0], hidden, toy.tasks[2])).reference_columns == (1, 1, 2)


def test_a_twin_of_another_kind_is_no_reference(toy: Any) -> None:
    heads = (DistillationConfig(teacher_task="rating", student_task="like"),)
    assert toy.setup(distillation=heads).reference_columns == (None, None, None)


def test_weights_and_rates_may_change_between_two_starts(toy: Any) -> None:
    before = toy.setup().described()
    off = tuple(d.model_copy(update={"schedule": "off", "weight": 3.0}) for d in toy.distillation)
    student = toy.student.model_copy(update={"learning_rate": 0.5, "replay_batches": 1, "micro_batch": 4})
    toy.setup(distillation=off, student=student).check_continues("v000001", before)


def test_a_changed_feature_is_named(toy: Any) -> None:
    features = list(toy.spec.features)
    features[0] = features[0].model_copy(update={"default": 31})
    changed = toy.setup(spec=toy.spec.model_copy(update={"features": tuple(features)}))
    with pytest.raises(ConfigurationError, match=r"spec.features.0.default: was 30, is now 31"):
        changed.check_continues("v000001", toy.setup().described())


def test_a_loss_must_fit_the_kind_of_its_task(toy: Any) -> None:
    heads = (
        DistillationConfig(teacher_task="rating", student_task="rating", loss="listwise"),
        DistillationConfig(teacher_task="like", student_task="rating", loss="direct"),
    )
    with pytest.raises(ConfigurationError) as error:
        toy.setup(distillation=heads)
    assert error.value.faults == (
        "distillation.0.loss: must not be 'listwise' for a regression (rating): it compares probabilities",
        "distillation.1.student_task: 'rating' must be binary with this loss or adapter, it is regression",
    )


def test_a_loss_that_shapes_the_student_is_part_of_the_setup(toy: Any) -> None:
    before = toy.setup().described()
    soft = tuple(d.model_copy(update={"loss": "logit_mse"}) for d in toy.distillation)
    toy.setup(distillation=soft).check_continues("v000001", before)
    direct = tuple(d.model_copy(update={"loss": "direct"}) for d in toy.distillation[1:])
    with pytest.raises(ConfigurationError, match=r"distillation.1: was .* is now \['like', 'like', 'direct'\]"):
        toy.setup(distillation=(toy.distillation[0], *direct)).check_continues("v000001", before)
