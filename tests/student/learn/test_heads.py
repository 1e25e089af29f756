"""What a head learns: its unit, its loss by its settings, and how much of the teacher it explains."""

from math import log
from typing import Any

import pytest
import torch
from torch import tensor

from student.learn.config import DistillationConfig
from student.learn.heads import TeacherHead, Unit

NAN = float("nan")
LOSSES = ("soft_label", "logit_mse", "listwise", "pairwise")
LOGITS = Unit("binary", 0.0, 1.0)


def head(unit: Unit, weight: float = 1.0, **changes: Any) -> TeacherHead:
    return TeacherHead(DistillationConfig(teacher_task="like", **changes), 0, 0, unit, unit, weight)


def test_a_head_learns_in_its_unit() -> None:
    # Binary: the offset is part of the logit. Regression: (3 - (5 - 4) / 2)^2 = 6.25
    assert float(Unit("binary", log(3), 1.0).loss(tensor([0.0]), tensor([1.0]))) == pytest.approx(-log(3 / 4))
    assert float(Unit("regression", 4.0, 2.0).loss(tensor([3.0]), tensor([5.0]))) == pytest.approx(6.25)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("present", [0, 1, 2])
def test_a_missing_logit_gives_no_gradient_and_no_nan(loss: Any, present: int) -> None:
    teacher_B = tensor([1.0, -0.5, 0.3][:present] + [NAN] * (3 - present))
    value_B = tensor([0.5, 7.0, -1.0], requires_grad=True)
    head(Unit("binary", 0.2, 1.0), loss=loss).loss(value_B, teacher_B).backward()
    assert value_B.grad is not None
    assert torch.isfinite(value_B.grad).all()
    assert not value_B.grad[present:].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_finite_for_extreme_logits(loss: Any) -> None:
    value_B = tensor([500.0, -500.0], requires_grad=True)
    loss_of_step = head(LOGITS, loss=loss).loss(value_B, tensor([-500.0, 500.0]))
    loss_of_step.backward()
    assert torch.isfinite(loss_of_step.detach())
    assert value_B.grad is not None
    assert torch.isfinite(value_B.grad).all()


def test_a_regression_learns_the_teachers_value_in_deviations() -> None:
    # ((3 - 4) / 2 - 1)^2 = 2.25
    loss = head(Unit("regression", 4.0, 2.0), loss="logit_mse").loss(tensor([1.0]), tensor([3.0]))
    assert float(loss) == pytest.approx(2.25)


def test_a_heads_loss_is_times_its_weight() -> None:
    # Half of the squared difference of 1 and 3.
    assert float(head(LOGITS, 0.5, loss="logit_mse").loss(tensor([1.0]), tensor([3.0]))) == pytest.approx(2.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_pointwise_head_fixes_the_level_of_its_values(loss: Any) -> None:
    """A ranking has no gradient in a shift of all values; in a bootstrap the soft label takes its place."""
    value_B = tensor([0.0, 0.0], requires_grad=True)
    head(LOGITS, loss=loss).pointwise().loss(value_B, tensor([2.0, 2.0])).backward()
    assert value_B.grad is not None
    assert float(value_B.grad.sum()) < -0.3


def test_a_head_explains_the_share_of_the_teachers_variance_that_is_not_left() -> None:
    # Targets 1, 3 (mean 2, spread 2), the third has no teacher; values 1, 2 leave 0 + 1: one half
    explained = head(Unit("regression", 0.0, 1.0)).explained(tensor([1.0, 2.0, 9.0]), tensor([1.0, 3.0, NAN]))
    assert explained == pytest.approx(0.5)
    # Binary: of probabilities; 3/4 and 1/4, the head says 1/2 of both: nothing
    assert head(LOGITS).explained(tensor([0.0, 0.0]), tensor([log(3), -log(3)])) == pytest.approx(0.0)


@pytest.mark.parametrize("teacher", [[NAN, NAN], [1.0, NAN], [1.0, 1.0]])
def test_a_teacher_that_does_not_vary_is_not_explained(teacher: list[float]) -> None:
    assert head(LOGITS).explained(tensor([0.0, 1.0]), tensor(teacher)) == 0.0


def test_what_varies_by_rounding_alone_is_not_explained_however_near_the_values_are() -> None:
    """A head that hits a constant within its rounding had explained 100 % of it."""
    teacher_B = tensor([3.7, 3.7000003, 3.7, 3.7000003])
    assert head(Unit("regression", 0.0, 1.0)).explained(teacher_B.clone(), teacher_B) == 0.0
    assert head(Unit("regression", 0.0, 1.0)).explained(1000 * teacher_B, 1000 * teacher_B) == 0.0
    wide_B = tensor([3.7, 3.701, 3.7, 3.701])
    assert head(Unit("regression", 0.0, 1.0)).explained(wide_B.clone(), wide_B) == pytest.approx(1.0)
