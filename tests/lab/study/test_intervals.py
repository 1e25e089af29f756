import pytest

from lab.study.intervals import interval, paired


def test_the_interval_is_students() -> None:
    """t(0.975, 2) = 4.302653; the deviation of 1, 2, 3 is 1: half = 4.302653 / sqrt(3)."""
    mean, low, high, seeds = interval([1.0, 2.0, 3.0])
    assert (mean, seeds) == (2.0, 3)
    assert (low, high) == (pytest.approx(2 - 2.484138), pytest.approx(2 + 2.484138))


def test_pairing_removes_what_both_share() -> None:
    gain = paired([1.1, 5.1, 9.1], [1.0, 5.0, 9.0])
    assert gain.mean == pytest.approx(0.1)
    assert gain.excludes_zero
    assert not interval([1.1, 5.1, -9.1]).excludes_zero


def test_one_seed_has_no_interval() -> None:
    assert interval([0.5]) == (0.5, 0.5, 0.5, 1)
    assert not interval([0.5]).excludes_zero
