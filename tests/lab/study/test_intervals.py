import pytest

from lab.study.findings.findings import interval, paired


def test_the_interval_is_students() -> None:
    """t(0.975, 4) = 2.776445; the deviation of 1 to 5 is sqrt(2.5): half = 2.776445 * sqrt(2.5 / 5)."""
    mean, low, high, seeds = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, seeds) == (3.0, 5)
    assert (low, high) == (pytest.approx(3 - 1.963243), pytest.approx(3 + 1.963243))


def test_pairing_removes_what_both_share() -> None:
    gain = paired([1.1, 5.1, 9.1, 2.1, 3.1], [1.0, 5.0, 9.0, 2.0, 3.0])
    assert gain.mean == pytest.approx(0.1)
    assert gain.excludes_zero
    assert not interval([1.1, 5.1, -9.1, 2.0, -1.0]).excludes_zero


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
def test_fewer_than_five_seeds_have_no_interval(values: list[float]) -> None:
    assert interval(values) == (0.5, 0.5, 0.5, len(values))
    assert not interval(values).excludes_zero
