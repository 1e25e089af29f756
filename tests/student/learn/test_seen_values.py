"""What is far from what was seen: nothing ordinary, and everything beyond reason."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from student.learn.network.bounds import SeenValues


def column(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)[:, None]


def far_ones(seen: SeenValues, values: Any, size: int = 8) -> list[float]:
    """Take the values in, `size` at a time; those that were far when they came."""
    rows = column(values)
    found: list[float] = []
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        seen.update(batch)
        found += batch[seen.far(batch) & seen.known].tolist()
    return found


ORDINARY = {
    "normal": lambda random, count: random.standard_normal(count),
    "counts that grow": lambda random, count: random.poisson(np.arange(count) / 50),
    "shares": lambda random, count: random.beta(1, 9, count),
    "years": lambda random, count: 2000 - random.poisson(8, count),
    "seconds, with a long tail": lambda random, count: random.lognormal(3, 1, count),
    "a rare flag": lambda random, count: random.random(count) < 0.002,
    "stars": lambda random, count: random.integers(1, 6, count),
    "nearly always a default": lambda random, count: np.where(random.random(count) < 0.1, random.random(count), 0.5),
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("size", [1, 4, 16, 1000])
def test_no_ordinary_value_is_far(name: str, size: int) -> None:
    values = ORDINARY[name](np.random.default_rng(5), 5000)
    assert far_ones(SeenValues(1), values, size) == []


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("bad", [1e6, -1e20, 3.4e38])
@pytest.mark.parametrize("place", [4, 30, 700, 4999])
def test_a_value_beyond_reason_is_far_wherever_it_comes(name: str, bad: float, place: int) -> None:
    values = ORDINARY[name](np.random.default_rng(5), 5000).astype(np.float32)
    values[place] = bad
    assert far_ones(SeenValues(1), values) == [np.float32(bad)]


def test_a_value_beyond_reason_is_far_in_the_first_batch_and_as_the_first_value() -> None:
    assert far_ones(SeenValues(1), [1e20, 1, 2, 3, 4, 5, 6, 7]) == [np.float32(1e20)]
    assert far_ones(SeenValues(1), [1e20, -1e20, 3, 4, 5, 6, 7, 8]) == [np.float32(1e20), np.float32(-1e20)]
    seen = SeenValues(1)
    assert far_ones(seen, [1e6, 1, 2], size=1) == []
    assert not seen.known.any(), "three values are too few to judge one by"
    assert far_ones(seen, [3, 2, 4, 1, 5], size=1) == []
    assert seen.far(column([1e6])).all()


def test_bad_values_that_come_again_and_again_stay_far() -> None:
    """One in fifty: each is far, and they widen the bound by less than a half."""
    random = np.random.default_rng(5)
    values = random.standard_normal(20_000)
    clean, disturbed = SeenValues(1), SeenValues(1)
    far_ones(clean, values)
    values[::50] = 1e12
    assert far_ones(disturbed, values) == [np.float32(1e12)] * 400
    assert disturbed.reach[0] < 1.5 * clean.reach[0]


def test_a_column_that_changes_for_good_is_known_after_few_values() -> None:
    seen = SeenValues(1)
    far_ones(seen, np.random.default_rng(5).standard_normal(20_000))
    assert len(far_ones(seen, np.full(2000, 1e6))) <= 24


def test_the_state_continues_bit_for_bit_and_its_size_is_fixed() -> None:
    values = np.random.default_rng(5).lognormal(3, 2, 3000)
    whole, half = SeenValues(1), SeenValues(1)
    far_ones(whole, values)
    far_ones(half, values[:1600])
    resumed = SeenValues(1)
    resumed.restore({name: tensor.copy() for name, tensor in half.tensors().items()})
    far_ones(resumed, values[1600:])
    for name, tensor in whole.tensors().items():
        assert tensor.tobytes() == resumed.tensors()[name].tobytes()
        assert tensor.shape == SeenValues(1).tensors()[name].shape


def test_a_nan_is_no_value() -> None:
    seen = SeenValues(2)
    for _ in range(50):
        seen.update(np.array([[1, np.nan], [3, np.nan]], np.float32))
    assert seen.known.tolist() == [True, False]
    assert not seen.far(np.array([[2, np.nan]], np.float32)).any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=False), max_size=300), st.integers(1, 40))
def test_no_values_break_it(values: list[float], size: int) -> None:
    seen = SeenValues(1)
    far_ones(seen, values, size)
    assert np.isfinite(seen.centre).all()
    assert np.isfinite(seen.reach).all()
