"""Each loss by its textbook formula, whose slope torch finds by itself; and slopes that follow by hand."""

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import logsigmoid

from student.learn.network.losses import Pointwise, Singles, listwise_slope, pairwise_slope, soft_label

NAN = float("nan")
VALUES = [0.3, -1.2, 2.0, 0.0, 0.7]
TEACHER = [1.1, -0.4, NAN, 0.2, -2.0]
SHARES = [1.0, 0.0, NAN, 1.0, 0.0]


def singles(values: Sequence[float]) -> Singles:
    return np.array(values, np.float32)


def assert_close(found: Singles, expected: Singles) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def by_torch(loss: Callable[[Tensor, Tensor], Tensor], target: list[float]) -> Singles:
    """The slope of a loss over the rows that have a target; 0 in the others."""
    value_B, target_B = tensor(VALUES, requires_grad=True), tensor(target)
    present_B = ~target_B.isnan()
    (slope_B,) = torch.autograd.grad(loss(value_B[present_B], target_B[present_B]), value_B)
    return slope_B.numpy()


def pointwise(target: list[float], values: list[float] = VALUES, kind: str = "share", **changes: float) -> Singles:
    numbers = {"offset": 0.0, "scale": 1.0, "temperature": 1.0, "weight": 1.0} | changes
    columns = [singles([value]) for value in numbers.values()]
    counts = int(kind == "share"), int(kind == "soft")
    column_B1 = singles(values)[:, None]
    return Pointwise(*counts, *columns).slope(column_B1, singles(target)[:, None], np.ones_like(column_B1))[:, 0]


def listwise(logit_B: Tensor, teacher_B: Tensor) -> Tensor:
    share_B = teacher_B.sigmoid() / teacher_B.sigmoid().sum()
    log_B = logsigmoid(logit_B)
    return -(share_B * (log_B - log_B.logsumexp(0))).sum()


def pairs(value_B: Tensor, teacher_B: Tensor) -> Tensor:
    over = torch.combinations(torch.arange(len(value_B)))
    difference, wanted = (one_B[over[:, 0]] - one_B[over[:, 1]] for one_B in (value_B, teacher_B))
    return cross_entropy(difference, wanted.sigmoid())


def test_a_label_of_a_binary_task_is_learnt_by_the_mean_cross_entropy() -> None:
    expected = by_torch(lambda value, label: cross_entropy(value + 0.4, label), SHARES)
    assert_close(pointwise(SHARES, offset=0.4), expected)


def test_a_regression_is_learnt_by_the_mean_squared_error_in_deviations() -> None:
    expected = by_torch(lambda value, target: (value - (target - 3) / 2).square().mean(), TEACHER)
    assert_close(pointwise(TEACHER, kind="square", offset=3.0, scale=2.0), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_soft_label_is_learnt_at_the_temperature_of_both(temperature: float) -> None:
    def loss(value_B: Tensor, teacher_B: Tensor) -> Tensor:
        logit_B = (value_B + 0.4) / temperature
        return temperature**2 * cross_entropy(logit_B, (teacher_B / temperature).sigmoid())

    own = pointwise(TEACHER, kind="soft", offset=0.4, temperature=temperature)
    assert_close(own, by_torch(loss, TEACHER))


def test_logits_are_learnt_by_their_mean_squared_difference() -> None:
    expected = by_torch(lambda value, teacher: (value + 0.4 - teacher).square().mean(), TEACHER)
    assert_close(pointwise(TEACHER, kind="square", offset=0.4), expected)


def test_a_loss_is_times_its_weight() -> None:
    assert_close(pointwise(SHARES, weight=0.5), 0.5 * pointwise(SHARES))


@pytest.mark.parametrize(("own", "loss"), [(listwise_slope, listwise), (pairwise_slope, pairs)])
def test_a_ranking_has_the_slope_of_its_formula(own: Any, loss: Any) -> None:
    assert_close(own(singles(VALUES), singles(TEACHER)), by_torch(loss, TEACHER))


def test_without_targets_nothing_is_learnt() -> None:
    for kind in ("share", "soft", "square"):
        assert pointwise([NAN] * 5, kind=kind).tolist() == [0] * 5


@pytest.mark.parametrize("slope", [listwise_slope, pairwise_slope])
@pytest.mark.parametrize("present", [0, 1])
def test_a_ranking_of_fewer_than_two_rows_teaches_nothing(slope: Any, present: int) -> None:
    teacher_B = singles(TEACHER[:present] + [NAN] * (5 - present))
    assert slope(singles(VALUES), teacher_B).tolist() == pytest.approx([0] * 5)


def test_a_soft_label_is_the_softened_probability() -> None:
    # sigmoid(2 ln 3 / 2) = 3/4
    soft_B = soft_label(singles([2 * log(3), NAN]), temperature=2.0)
    assert float(soft_B[0]) == pytest.approx(3 / 4)
    assert np.isnan(soft_B[1])


def test_the_slope_of_a_soft_label_is_the_difference_of_the_probabilities() -> None:
    # q = 3/4, p = sigmoid(ln 1) = 1/2: p - q = -1/4; at T = 2 with twice the logit: T (p - q) = 2 * (1/2 - 3/4)
    assert pointwise([log(3)], [0.0], kind="soft").tolist() == pytest.approx([-1 / 4])
    assert pointwise([2 * log(3)], [0.0], kind="soft", temperature=2.0).tolist() == pytest.approx([-1 / 2])


def test_with_a_high_temperature_the_slope_is_that_of_an_eighth_of_the_squared_difference() -> None:
    slope_B = pointwise([-1.0], [2.0], kind="soft", temperature=100.0)
    assert float(slope_B[0]) == pytest.approx((2 - -1) / 4, rel=1e-3)


def test_the_listwise_loss_is_least_at_the_teachers_own_probabilities() -> None:
    """The calibration-compatible property: no slope at p = q, whatever the level of the list."""
    teacher_B = singles([2.0, -1.0, -3.0])
    assert np.abs(listwise_slope(teacher_B, teacher_B)).max() < 1e-6


def test_the_pairwise_slopes_are_ranknets() -> None:
    # One pair: the teacher prefers the first with sigmoid(ln 3) = 3/4, the head is undecided: 1/2 - 3/4, and back
    slope_B = pairwise_slope(singles([1.0, 1.0, 7.0]), singles([log(3), 0.0, NAN]))
    assert slope_B.tolist() == pytest.approx([-0.25, 0.25, 0])
