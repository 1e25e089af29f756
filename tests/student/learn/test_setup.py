"""A learner's parts are checked as a whole, with every fault at once."""

from typing import Any

import pytest

from runtime.errors import ConfigurationError
from stream.tasks import TaskSpec
from student.learn.config import DistillationConfig


def test_every_fault_is_reported_at_once(toy: Any) -> None:
    heads = (
        DistillationConfig(teacher_task="watch", student_task="love"),
        DistillationConfig(teacher_task="like", student_task="likes"),
        DistillationConfig(teacher_task="like", student_task="like"),
        DistillationConfig(teacher_task="rating", student_task="rating"),
    )
    tasks = (*toy.tasks, TaskSpec(name="x", kind="binary", window_seconds=1, teacher_reference="rating"))
    with pytest.raises(ConfigurationError) as error:
        toy.setup(distillation=heads, tasks=tasks)
    assert error.value.faults == (
        "tasks.3.teacher_reference: 'rating' is regression, but 'x' is binary; both must be of one kind",
        "distillation: each teacher task may be distilled once, got like more often",
        "distillation.0.teacher_task: no such teacher task, got 'watch'; allowed are finish, like, rating",
        "distillation.0.student_task: no such student task, got 'love'; allowed are like, hidden, rating, x",
        "distillation.1.student_task: no such student task, got 'likes'; did you mean like?",
    )


def test_the_teachers_reference_is_the_twin_unless_named(toy: Any) -> None:
    hidden = toy.tasks[1].model_copy(update={"teacher_reference": "like"})
    assert toy.setup().reference_columns == (1, None, 2)
    assert toy.setup(tasks=(toy.tasks[0], hidden, toy.tasks[2])).reference_columns == (1, 1, 2)


def test_weights_and_rates_may_change_between_two_starts(toy: Any) -> None:
    before = toy.setup().described()
    heads = tuple(d.model_copy(update={"weight": 3.0, "gradient_scale": 2.0}) for d in toy.distillation)
    student = toy.student.model_copy(update={"learning_rate": 0.5, "replay_batches": 1, "micro_batch": 4})
    toy.setup(distillation=heads, student=student, wait_seconds=0).check_continues("v000001", before)


def test_a_changed_feature_is_named(toy: Any) -> None:
    features = list(toy.spec.features)
    features[0] = features[0].model_copy(update={"default": 31})
    changed = toy.setup(spec=toy.spec.model_copy(update={"features": tuple(features)}))
    with pytest.raises(ConfigurationError, match=r"spec.features.0.default: was 30, is now 31"):
        changed.check_continues("v000001", toy.setup().described())


def test_an_auxiliary_head_stands_on_a_task_of_its_kind(toy: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^distillation.0.student_task: 'rating' is regression, but"):
        toy.setup(distillation=(DistillationConfig(teacher_task="like", student_task="rating"),))


def test_a_control_is_the_same_without_distillation_beside_the_same_logits(toy: Any) -> None:
    control = toy.setup().control()
    assert control.distillation == control.teacher_columns == control.teacher_kinds == ()
    assert control.teacher_tasks == toy.teacher_tasks
    assert (control.tasks, control.student, control.spec) == (toy.tasks, toy.student, toy.spec)
