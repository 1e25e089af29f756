"""Each loss against a value worked out by hand."""

from math import log
from typing import Any

import pytest
import torch
from torch import tensor

from student.learn.losses import head_loss, listwise, logit_mse, pairwise, soft_label, soft_label_loss

NAN = float("nan")


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


def test_a_soft_label_is_the_softened_probability() -> None:
    # sigmoid(2 ln 3 / 2) = 3/4
    soft_B = soft_label(tensor([2 * log(3), NAN]), temperature=2.0)
    assert float(soft_B[0]) == pytest.approx(3 / 4)
    assert torch.isnan(soft_B[1])


def test_the_soft_label_loss_is_the_cross_entropy_against_the_soft_label() -> None:
    # q = 3/4, p = sigmoid(ln 1) = 1/2: -(3/4 ln 1/2 + 1/4 ln 1/2) = ln 2; its gradient in the logit is p - q = -1/4
    logit_B = tensor([0.0], requires_grad=True)
    loss = soft_label_loss(logit_B, tensor([log(3)]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(log(2))
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx(-1 / 4)


def test_a_temperature_softens_head_and_teacher_and_keeps_the_gradients_size() -> None:
    # T = 2: q = sigmoid(2 ln 3 / 2) = 3/4, p = 1/2: 4 ln 2; the gradient is T (p - q) = 2 * (1/2 - 3/4)
    logit_B = tensor([0.0], requires_grad=True)
    loss = soft_label_loss(logit_B, tensor([2 * log(3)]), temperature=2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(4 * log(2))
    assert logit_B.grad is not None
    assert float(logit_B.grad) == pytest.approx(-1 / 2)


def test_with_a_high_temperature_the_gradient_is_that_of_an_eighth_of_the_squared_difference() -> None:
    logit_B = tensor([2.0], requires_grad=True)
    soft_label_loss(logit_B, tensor([-1.0]), temperature=100.0).backward()
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
