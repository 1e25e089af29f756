"""Running moments: the batches' exact ones, safe before and without variation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from student.versions.served_tensors import RunningMoments, normalised


@given(
    st.lists(st.lists(st.one_of(st.just(np.nan), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=9), min_size=1)
)
def test_batches_give_the_moments_of_all_values(batches: list[list[float]]) -> None:
    moments = RunningMoments(1)
    for batch in batches:
        moments.update(np.array(batch, np.float32)[:, None])
    values = np.array([value for batch in batches for value in batch], np.float32).astype(np.float64)
    values = values[~np.isnan(values)]
    assert moments.count.tolist() == [len(values)]
    if len(values):
        np.testing.assert_allclose(moments.mean[0], values.mean(), rtol=1e-5, atol=1e-4)
        if values.std() > 1e-2:
            np.testing.assert_allclose(moments.std[0], values.std(), rtol=1e-4)


def test_before_the_first_value_mean_is_0_and_deviation_1() -> None:
    moments = RunningMoments(2)
    assert (moments.mean.tolist(), moments.std.tolist()) == ([0, 0], [1, 1])


def test_a_column_that_never_varied_divides_by_1() -> None:
    moments = RunningMoments(2)
    for _ in range(3):
        moments.update(np.array([[0.1, 0.0]] * 7, np.float32))
    assert moments.std.tolist() == [1, 1]
    assert moments.mean.tolist() == np.array([0.1, 0], np.float32).tolist()


def test_a_nan_counts_in_no_column() -> None:
    moments = RunningMoments(2)
    moments.update(np.array([[1, np.nan], [3, 5]], np.float32))
    assert moments.count.tolist() == [2, 1]
    assert moments.mean.tolist() == [2, 5]
    assert moments.std.tolist() == [1, 1]


def test_the_state_continues() -> None:
    first, second = RunningMoments(1), RunningMoments(1)
    first.update(np.array([[1], [4]], np.float32))
    second.restore(first.tensors())
    for moments in (first, second):
        moments.update(np.array([[9]], np.float32))
    assert first.mean.tobytes() == second.mean.tobytes()
    assert first.std.tobytes() == second.std.tobytes()


def test_inputs_are_deviations_from_the_mean_of_which_no_more_than_two_count() -> None:
    mean, std = np.array([10, 0], np.float32), np.array([4, 1], np.float32)
    rows = np.array([[10, -1.5], [16, 7], [1e38, -1e38]], np.float32)
    assert normalised(rows, mean, std).tolist() == [[0, -1.5], [1.5, 2], [2, -2]]


def test_discounted_values_keep_their_mean_and_yield_to_later_ones() -> None:
    moments = RunningMoments(2)
    moments.update(np.array([[1, 5], [3, 5]] * 50, np.float32))
    moments.discount(4)
    assert (moments.count.tolist(), moments.mean.tolist(), moments.std.tolist()) == ([4, 1], [2, 5], [1, 1])
    moments.update(np.array([[6, 9]] * 4, np.float32))
    assert moments.mean.tolist() == pytest.approx([4, (5 + 4 * 9) / 5])


def test_a_row_that_stands_for_several_counts_as_so_many() -> None:
    weighed, repeated = RunningMoments(2), RunningMoments(2)
    value_BD = np.array([[1, np.nan], [3, 5], [4, 9]], np.float32)
    weighed.update(value_BD, np.array([[5], [1], [2]], np.float32))
    repeated.update(value_BD[[0] * 5 + [1] + [2] * 2])
    assert weighed.count.tolist() == repeated.count.tolist() == [8, 3]
    assert weighed.mean.tolist() == pytest.approx(repeated.mean.tolist())
    assert weighed.std.tolist() == pytest.approx(repeated.std.tolist())
