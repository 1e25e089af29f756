"""Each loss against a value worked out by hand."""

from math import log
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import tensor

from student.learn.config import DistillationConfig
from student.learn.distillation import distillation_loss
from student.learn.losses import (
    distillation_weight,
    head_loss,
    listwise,
    logit_mse,
    pairwise,
    scale_gradient,
    soft_label,
    soft_label_loss,
)
from student.learn.units import Unit

NAN = float("nan")


def config(**changes: Any) -> DistillationConfig:
    return DistillationConfig(teacher_task="like", **changes)


def test_a_binary_heads_loss_is_the_mean_cross_entropy() -> None:
    # -ln sigmoid(0) = ln 2; -ln(1 - sigmoid(ln 3)) = -ln(1/4) = ln 4
    loss = head_loss("binary", tensor([0.0, log(3)]), tensor([1.0, 0.0]))
    assert float(loss.detach()) == pytest.approx((log(2) + log(4)) / 2)


def test_a_regression_heads_loss_is_the_mean_squared_error() -> None:
    assert float(head_loss("regression", tensor([1.0, 4.0]), tensor([3.0, 5.0]))) == pytest.approx((4 + 1) / 2)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_missing_target_gives_no_loss_and_no_gradient(kind: Any) -> None:
    predicted_B = tensor([0.5, 7.0, -1.0], requires_grad=True)
    loss = head_loss(kind, predicted_B, tensor([1.0, NAN, 0.0]))
    loss.backward()
    assert predicted_B.grad is not None
    assert predicted_B.grad[1] == 0
    assert torch.isfinite(predicted_B.grad).all()
    assert float(loss.detach()) == pytest.approx(float(head_loss(kind, tensor([0.5, -1.0]), tensor([1.0, 0.0]))))


def test_a_batch_without_targets_costs_nothing() -> None:
    predicted_B = tensor([0.5, 7.0], requires_grad=True)
    loss = head_loss("binary", predicted_B, tensor([NAN, NAN]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert predicted_B.grad is not None
    assert predicted_B.grad.tolist() == [0, 0]


def test_a_soft_label_is_the_scaled_and_softened_probability() -> None:
    # sigmoid(2 ln 3 / 2) = 3/4, half of it: 3/8
    soft_B = soft_label(config(label_scale=0.5), tensor([2 * log(3), NAN]), temperature=2.0)
    assert float(soft_B[0]) == pytest.approx(3 / 8)
    assert torch.isnan(soft_B[1])


def test_a_scaled_soft_label_stays_a_probability() -> None:
    assert float(soft_label(config(label_scale=10.0), tensor([0.0]))) == 1


def test_the_soft_label_loss_is_the_cross_entropy_against_the_soft_label() -> None:
    # q = 3/4, p = sigmoid(ln 1) = 1/2: -(3/4 ln 1/2 + 1/4 ln 1/2) = ln 2; its gradient in the logit is p - q = -1/4
    logit_B = tensor([0.0], requires_grad=True)
    loss = soft_label_loss(config(), logit_B, tensor([log(3)]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(log(2))
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx(-1 / 4)


def test_a_temperature_softens_head_and_teacher_and_keeps_the_gradients_size() -> None:
    # T = 2: q = sigmoid(2 ln 3 / 2) = 3/4, p = 1/2: 4 ln 2; the gradient is T (p - q) = 2 * (1/2 - 3/4)
    logit_B = tensor([0.0], requires_grad=True)
    loss = soft_label_loss(config(temperature=2.0), logit_B, tensor([2 * log(3)]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(4 * log(2))
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx(-1 / 2)


def test_with_a_high_temperature_the_gradient_is_that_of_an_eighth_of_the_squared_difference() -> None:
    logit_B = tensor([2.0], requires_grad=True)
    soft_label_loss(config(temperature=100.0), logit_B, tensor([-1.0])).backward()
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx((2 - -1) / 4, rel=1e-3)


def test_the_logit_mse_is_the_mean_squared_difference() -> None:
    assert float(logit_mse(tensor([1.0, 0.0, 9.0]), tensor([3.0, -1.0, NAN]))) == pytest.approx((4 + 1) / 2)


def test_the_listwise_loss_compares_shares_of_the_lists_probability() -> None:
    # Teacher: q = 3/4, 1/4, shares 3/4, 1/4. Head: p = 1/2, 1/2, shares 1/2: ln 2. The third row has no teacher.
    loss = listwise(tensor([0.0, 0.0, 5.0]), tensor([log(3), -log(3), NAN]))
    assert float(loss) == pytest.approx(log(2))


def test_the_listwise_loss_is_least_at_the_teachers_own_probabilities() -> None:
    """The calibration-compatible property: no gradient at p = q, whatever the level of the list."""
    teacher_B = tensor([2.0, -1.0, -3.0])
    logit_B = teacher_B.clone().requires_grad_()
    listwise(logit_B, teacher_B).backward()
    assert logit_B.grad is not None
    assert logit_B.grad.abs().max() < 1e-6


def test_the_pairwise_loss_is_ranknets_over_pairs_of_rows_with_a_teacher() -> None:
    # One pair: the teacher prefers the first with sigmoid(ln 3) = 3/4; the head is undecided: ln 2
    assert float(pairwise(tensor([1.0, 1.0, 7.0]), tensor([log(3), 0.0, NAN]))) == pytest.approx(log(2))
    # Three pairs, head = teacher = (ln 3, 0, 0): two of entropy H(3/4), one of ln 2
    both_B = tensor([log(3), 0.0, 0.0])
    entropy = -(3 / 4 * log(3 / 4) + 1 / 4 * log(1 / 4))
    assert float(pairwise(both_B, both_B)) == pytest.approx((2 * entropy + log(2)) / 3)


LOSSES = ("soft_label", "logit_mse", "listwise", "pairwise")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("present", [0, 1, 2])
def test_a_missing_logit_gives_no_gradient_and_no_nan(loss: Any, present: int) -> None:
    teacher_B = tensor([1.0, -0.5, 0.3][:present] + [NAN] * (3 - present))
    value_B = tensor([0.5, 7.0, -1.0], requires_grad=True)
    distillation_loss(config(loss=loss), Unit("binary", 0.2, 1.0), value_B, teacher_B).backward()
    assert value_B.grad is not None
    assert torch.isfinite(value_B.grad).all()
    assert not value_B.grad[present:].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_finite_for_extreme_logits(loss: Any) -> None:
    value_B = tensor([500.0, -500.0], requires_grad=True)
    loss_of_step = distillation_loss(config(loss=loss), Unit("binary", 0.0, 1.0), value_B, tensor([-500.0, 500.0]))
    loss_of_step.backward()
    assert torch.isfinite(loss_of_step.detach())
    assert value_B.grad is not None
    assert torch.isfinite(value_B.grad).all()


def test_a_regression_learns_the_teachers_value_in_deviations() -> None:
    # ((3 - 4) / 2 - 1)^2 = 2.25
    loss = distillation_loss(config(loss="logit_mse"), Unit("regression", 4.0, 2.0), tensor([1.0]), tensor([3.0]))
    assert float(loss) == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "direct"}, "student_task must be set with loss 'direct'"),
        ({"adapter": True}, "student_task must be set with adapter"),
        ({"loss": "listwise", "temperature": 2.0}, "label_scale and temperature must be 1 with loss 'listwise'"),
        ({"loss": "direct", "student_task": "like", "gradient_scale": 2.0}, "gradient_scale must be 1 with loss"),
    ],
)
def test_an_option_without_an_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_a_scaled_gradient_leaves_the_value() -> None:
    value_B = tensor([0.3, -2.0], requires_grad=True)
    scaled_B = scale_gradient(value_B, 5.0)
    scaled_B.sum().backward()
    assert scaled_B.tolist() == value_B.tolist()
    assert value_B.grad is not None
    assert value_B.grad.tolist() == [5, 5]


def test_schedules() -> None:
    assert distillation_weight(config(weight=0.5), 10**9) == 0.5
    assert distillation_weight(config(weight=0.5, schedule="off"), 0) == 0
    decay = config(weight=0.5, schedule="decay", decay_examples=100)
    assert [distillation_weight(decay, n) for n in (0, 100, 200)] == [0.5, 0.25, 0.125]


def test_a_decay_without_a_span_is_refused() -> None:
    with pytest.raises(ValidationError, match="decay_examples must be at least 1 for schedule 'decay', got 0"):
        config(schedule="decay")


def test_a_head_learns_in_its_unit() -> None:
    # Binary: the offset is part of the logit. Regression: (3 - (5 - 4) / 2)^2 = 6.25
    assert float(Unit("binary", log(3), 1.0).loss(tensor([0.0]), tensor([1.0]))) == pytest.approx(-log(3 / 4))
    assert float(Unit("regression", 4.0, 2.0).loss(tensor([3.0]), tensor([5.0]))) == pytest.approx(6.25)
