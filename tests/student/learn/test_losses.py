"""Each loss by its textbook formula, whose slope torch finds by itself; and slopes that follow by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from student.learn.network.heads import Pointwise, Singles

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
    numbers = {"offset": 0.0, "scale": 1.0, "weight": 1.0} | changes
    columns = [singles([value]) for value in numbers.values()]
    counts = int(kind == "share"), int(kind == "soft")
    column_B1 = singles(values)[:, None]
    return Pointwise(*counts, *columns).slope(column_B1, singles(target)[:, None], np.ones_like(column_B1))[:, 0]


def test_a_label_of_a_binary_task_is_learnt_by_the_mean_cross_entropy() -> None:
    expected = by_torch(lambda value, label: cross_entropy(value + 0.4, label), SHARES)
    assert_close(pointwise(SHARES, offset=0.4), expected)


def test_a_regression_is_learnt_by_the_mean_squared_error_in_deviations() -> None:
    expected = by_torch(lambda value, target: (value - (target - 3) / 2).square().mean(), TEACHER)
    assert_close(pointwise(TEACHER, kind="square", offset=3.0, scale=2.0), expected)


def test_a_teachers_logit_is_learnt_as_a_soft_label() -> None:
    expected = by_torch(lambda value, teacher: cross_entropy(value + 0.4, teacher.sigmoid()), TEACHER)
    assert_close(pointwise(TEACHER, kind="soft", offset=0.4), expected)


def test_a_loss_is_times_its_weight() -> None:
    assert_close(pointwise(SHARES, weight=0.5), 0.5 * pointwise(SHARES))


def test_without_targets_nothing_is_learnt() -> None:
    for kind in ("share", "soft", "square"):
        assert pointwise([NAN] * 5, kind=kind).tolist() == [0] * 5
