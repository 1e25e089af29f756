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
        DistillationConfig(teacher_task="like"),
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
    heads = tuple(d.model_copy(update={"weight": 3.0, "half_life_examples": 9}) for d in toy.distillation)
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


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"loss": "listwise"}, "loss: must not be 'listwise' for a regression (rating): it compares probabilities"),
        ({"temperature": 3}, "temperature: must be 1 for a regression (rating), which has no soft label, got 3"),
    ],
)
def test_what_means_nothing_for_a_regression_is_refused(toy: Any, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        toy.setup(distillation=(DistillationConfig(teacher_task="rating", **changes),))
    assert error.value.faults == (f"distillation.0.{fault}",)


def test_what_shapes_the_student_is_part_of_the_setup_and_a_loss_is_not(toy: Any) -> None:
    before = toy.setup().described()
    soft = tuple(d.model_copy(update={"loss": "logit_mse"}) for d in toy.distillation)
    toy.setup(distillation=soft).check_continues("v000001", before)
    adapted = tuple(d.model_copy(update={"adapter": True}) for d in toy.distillation[1:])
    with pytest.raises(ConfigurationError, match=r"distillation.1: was .* is now \['like', 'like', 'adapter'\]"):
        toy.setup(distillation=(toy.distillation[0], *adapted)).check_continues("v000001", before)


def test_a_control_is_the_same_without_distillation_beside_the_same_logits(toy: Any) -> None:
    control = toy.setup().control()
    assert control.distillation == control.teacher_columns == control.teacher_kinds == ()
    assert control.teacher_tasks == toy.teacher_tasks
    assert (control.tasks, control.student, control.spec) == (toy.tasks, toy.student, toy.spec)
