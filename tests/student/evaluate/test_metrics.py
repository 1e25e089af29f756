"""The formulas against values worked out by hand."""

from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from student.evaluate.metrics import (
    GroupedAuc,
    Sums,
    exact_auc,
    expected_calibration_error,
    grouped_auc,
    histogram_auc,
    losses,
    normalized_entropy,
    r_squared,
)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def users(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def test_log_loss_of_a_logit() -> None:
    # sigmoid(log 3) = 3/4
    assert losses("binary", floats(1, 0), floats(log(3), log(3))).tolist() == pytest.approx([-log(3 / 4), -log(1 / 4)])


def test_squared_error_of_a_value() -> None:
    assert losses("regression", floats(3, 1), floats(1, 1.5)).tolist() == [4.0, 0.25]


def test_normalized_entropy_is_1_for_the_base_rate_itself() -> None:
    entropy = -0.2 * log(0.2) - 0.8 * log(0.8)
    assert normalized_entropy(entropy, 0.2) == pytest.approx(1)
    assert normalized_entropy(0.25, 0.2) == pytest.approx(0.25 / 0.5004024)
    assert normalized_entropy(0.1, 0.0) is None
    assert normalized_entropy(0.1, 1.0) is None


def test_calibration_error_is_the_mean_over_rows_and_0_where_each_bin_keeps_its_promise() -> None:
    # one bin: 3 rows at .5, 1 positive: |.5 - 1/3| = 1/6; the other: 1 row at .9, positive: .1. (3/6 + .1) / 4
    bins = np.zeros((3, 10))
    bins[:, 5], bins[:, 9] = (3, 1, 1.5), (1, 1, 0.9)
    assert expected_calibration_error(bins) == pytest.approx((0.5 + 0.1) / 4)
    bins[:, 5], bins[:, 9] = (4, 1, 1), (4, 3, 3)
    assert expected_calibration_error(bins) == 0


def test_r_squared_compares_with_the_mean_label() -> None:
    def sums(label_squared: float, loss: float) -> Sums:
        return Sums(rows=3, label=6, label_squared=label_squared, prediction=6, loss=loss, age=0)

    # labels 1, 2, 3: deviation 2; errors .5, 0, .5: squared .5
    assert r_squared(sums(14, 0.5)) == pytest.approx(0.75)
    assert r_squared(sums(14, 2)) == pytest.approx(0)
    assert r_squared(sums(14, 4)) == pytest.approx(-1)
    assert r_squared(sums(12, 1)) is None


def test_ties_count_half_and_one_class_has_no_auc() -> None:
    assert exact_auc(floats(1, 0, 1, 0), floats(1, 1, 2, 0)) == 3.5 / 4
    assert exact_auc(np.ones(3, np.float32), np.arange(3, dtype=np.float32)) is None
    assert histogram_auc(np.array([[0, 0], [1, 2]])) is None
    assert grouped_auc(users(), floats(), floats()).mean() is None
    assert grouped_auc(users(1, 2), floats(1, 0), floats(1, 2)).mean() is None


def test_gauc_is_the_mean_of_users_aucs_weighted_by_their_rows() -> None:
    # user 1: + at 2 against - at 1 and 3: 1/2, 3 rows. user 2: + above -: 1, 2 rows. user 3: one class, no weight.
    grouped = grouped_auc(users(1, 2, 1, 3, 2, 1, 3), floats(1, 0, 0, 1, 1, 0, 1), floats(2, -9, 1, 5, -8, 3, 6))
    assert grouped == GroupedAuc(3 * 0.5 + 2 * 1, 5)
    assert grouped.mean() == pytest.approx(3.5 / 5)


def test_gauc_ignores_what_only_tells_users_apart() -> None:
    # The score is each user's own mean label: AUC over all is 3/4, within users it is chance.
    user, label, score = users(1, 1, 1, 1, 2, 2, 2, 2), floats(1, 1, 1, 0, 0, 0, 0, 1), floats(*[0.75] * 4, *[0.25] * 4)
    assert exact_auc(label, score) == 0.75
    assert grouped_auc(user, label, score).mean() == 0.5


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=40)


def columns(rows: list[tuple[int, int, int]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    user, label, score = zip(*rows, strict=True)
    return users(*user), floats(*label), floats(*score)


@given(ROWS)
def test_gauc_is_each_users_own_auc(rows: list[tuple[int, int, int]]) -> None:
    user_B, label_B, score_B = columns(rows)
    weighted = weight = 0.0
    for user in set(user_B.tolist()):
        mine_B = user_B == user
        if (auc := exact_auc(label_B[mine_B], score_B[mine_B])) is not None:
            weighted, weight = weighted + auc * mine_B.sum(), weight + mine_B.sum()
    assert grouped_auc(user_B, label_B, score_B) == pytest.approx((weighted, weight))


@given(ROWS, st.randoms(use_true_random=False))
def test_gauc_does_not_depend_on_the_order_of_rows(rows: list[tuple[int, int, int]], random: Any) -> None:
    before = grouped_auc(*columns(rows))
    random.shuffle(rows)
    assert grouped_auc(*columns(rows)) == before
