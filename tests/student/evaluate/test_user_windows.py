"""Sums in which a user counts for a few examples at most, however the examples come."""

import numpy as np
import pytest

from student.evaluate.gate import MOST_OF_A_USER, WINDOW, UserWindows, weighted_sums

RANDOM = np.random.default_rng(1)
USERS = RANDOM.integers(0, 20, 3 * WINDOW + 50).astype(np.uint64)
PARTS = RANDOM.choice([0.2, 1.0], len(USERS))
VALUES = RANDOM.normal(size=(len(USERS), 2))


def test_a_user_of_many_examples_counts_for_a_few_and_others_for_each() -> None:
    user_B = np.array([7] * (WINDOW - 3) + [1, 1, 2], np.uint64)
    value_BC = np.where(user_B == 7, 1.0, -1.0)[:, None]
    ((count, total, square),) = next(iter(UserWindows(1).add(user_B, np.ones(WINDOW), value_BC)))
    assert count == pytest.approx(MOST_OF_A_USER + 3)
    assert total == pytest.approx(MOST_OF_A_USER - 3)
    assert square == pytest.approx(MOST_OF_A_USER**2 / (WINDOW - 3) + 3)


def test_values_that_are_not_finite_do_not_count() -> None:
    value_BC = np.array([[1.0, np.nan], [np.inf, np.nan], [2.0, np.nan]])
    assert weighted_sums(value_BC, np.array([1.0, 1.0, 0.5])).tolist() == [[1.5, 2.0, 2.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("size", [1, 100, 1_000])
def test_how_examples_are_cut_does_not_matter(size: int) -> None:
    whole, cut = UserWindows(2), UserWindows(2)
    expected = list(whole.add(USERS, PARTS, VALUES))
    assert len(expected) == 3
    found = []
    for first in range(0, len(USERS), size):
        part = slice(first, first + size)
        found += list(cut.add(USERS[part], PARTS[part], VALUES[part]))
    assert np.array_equal(found, expected)


def test_a_cleared_window_begins_anew() -> None:
    windows, rest = UserWindows(2), slice(100, WINDOW)
    assert list(windows.add(USERS[:100], PARTS[:100], VALUES[:100])) == []
    windows.clear()
    assert list(windows.add(USERS[rest], PARTS[rest], VALUES[rest])) == []


def test_a_part_of_an_example_counts_as_such_a_part() -> None:
    user_B, part_B = np.array([7] * 200 + [1] * (WINDOW - 200), np.uint64), np.full(WINDOW, 0.01)
    value_BC = np.where(user_B == 7, 1.0, -1.0)[:, None]
    ((count, total, square),) = next(iter(UserWindows(1).add(user_B, part_B, value_BC)))
    assert count == pytest.approx(0.01 * WINDOW)  # user 7 has two whole examples' worth: below what one may have
    assert total == pytest.approx(0.01 * (200 - (WINDOW - 200)))
    assert square == pytest.approx(0.0001 * WINDOW)
