"""Means over seeds with their 95 % confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST_SEEDS = 5
"""With fewer values there is no interval: two seeds of a teacher without worth lay close together on one side of 0."""


class Interval(NamedTuple):
    """A mean and its 95 % interval; where there are too few values for one, `low` and `high` are the mean."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_known(self) -> bool:
        """Whether there are values enough for an interval."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.is_known and (self.low > 0 or self.high < 0)


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of at least one value (Student 1908)."""
    mean, count = float(np.mean(values)), len(values)
    if count < FEWEST_SEEDS:
        return Interval(mean, mean, mean, count)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half, count)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of ours - theirs, seed by seed."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])
