"""Each loss against a value worked out by hand."""

from math import log
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import tensor

from student.arm import Unit
from student.config import DistillationConfig
from student.losses import distillation_weight, head_loss, scale_gradient, soft_label

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
    soft_B = soft_label("binary", config(label_scale=0.5, temperature=2.0), tensor([2 * log(3), NAN]))
    assert float(soft_B[0]) == pytest.approx(3 / 8)
    assert torch.isnan(soft_B[1])


def test_a_scaled_soft_label_stays_a_probability() -> None:
    assert float(soft_label("binary", config(label_scale=10.0), tensor([0.0]))) == 1


def test_a_regression_teachers_value_is_the_target_itself() -> None:
    assert soft_label("regression", config(label_scale=3.0, temperature=2.0), tensor([3.5])).tolist() == [3.5]


def test_an_auxiliary_heads_loss_is_the_cross_entropy_against_the_soft_label() -> None:
    # q = 3/4, p = sigmoid(ln 1) = 1/2: -(3/4 ln 1/2 + 1/4 ln 1/2) = ln 2; its gradient in the logit is p - q = -1/4
    logit_B = tensor([0.0], requires_grad=True)
    loss = head_loss("binary", logit_B, soft_label("binary", config(), tensor([log(3)])))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(log(2))
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx(-1 / 4)


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
