"""Means over seeds with their 95 % confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


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
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, mean, mean, 1)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half, count)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of ours - theirs, seed by seed."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])
