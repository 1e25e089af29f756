"""Means over seeds with their 95 % confidence intervals."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

# Student's t, 97.5 %, for 1, 2, 3 ... degrees of freedom; above, the value for 30 is at most 5 % too wide.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Interval(NamedTuple):
    """A mean and its 95 % interval; one value alone has none, and `low` and `high` are then the mean."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.seeds > 1 and (self.low > 0 or self.high < 0)


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of at least one value (Student 1908)."""
    mean, count = fmean(values), len(values)
    if count == 1:
        return Interval(mean, mean, mean, 1)
    t = _T[min(count - 2, len(_T) - 1)]
    half = t * stdev(values) / sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of ours - theirs, seed by seed."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])
