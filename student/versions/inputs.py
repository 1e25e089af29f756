"""What becomes of a row before a network sees it: dense columns are normalised, categorical ones hashed to rows.

The same for learner and scorer. Shapes: B rows, D dense columns, C categorical columns.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH

_CLIP = np.float32(2)
"""Deviations from the mean at which an input is cut off. Counts go on growing after a version is published, and a
student gives wild scores to inputs larger than any that it has learnt (decision 4 has the numbers)."""

_CONSTANT = 1e-6
"""A deviation below this share of the mean is rounding: the column has not varied yet."""


def normalised(
    value_BD: NDArray[np.float32], mean_D: NDArray[np.float32], std_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values in deviations from the mean, in [-2, 2], as learner and scorer give them to the student."""
    with np.errstate(over="ignore"):  # what is beyond float32 in deviations is cut off like any other large value
        clipped_BD: NDArray[np.float32] = ((value_BD - mean_D) / std_D).clip(-_CLIP, _CLIP)
    return clipped_BD


class RunningMoments:
    """Count, mean and squared deviations of D columns; a NaN is no value and counts in no column.

    Merged batch by batch (Chan, Golub & LeVeque 1979), in float64: the result depends on the batches' order, which is
    the log's.
    """

    def __init__(self, width: int) -> None:
        self._count_D = np.zeros(width, np.int64)
        self._mean_D = np.zeros(width, np.float64)
        self._squares_D = np.zeros(width, np.float64)
        self._follow()

    def update(self, value_BD: NDArray[np.float32], weight_B1: NDArray[np.float32] | None = None) -> None:
        """Add B rows; `weight_B1` are whole numbers: each row counts as so many."""
        present_BD = ~np.isnan(value_BD)
        count_BD = present_BD if weight_B1 is None else present_BD * weight_B1.astype(np.int64)
        count_D = count_BD.sum(axis=0)
        value_BD64 = np.where(present_BD, value_BD, 0).astype(np.float64)
        mean_D = (value_BD64 * count_BD).sum(axis=0) / np.maximum(count_D, 1)
        squares_D = ((value_BD64 - mean_D) ** 2 * count_BD).sum(axis=0)
        total_D = self._count_D + count_D
        share_D = count_D / np.maximum(total_D, 1)
        delta_D = mean_D - self._mean_D
        self._squares_D += squares_D + delta_D**2 * self._count_D * share_D
        self._mean_D += delta_D * share_D
        self._count_D = total_D
        self._follow()

    def discount(self, count: int) -> None:
        """Give all values so far the weight of `count` values at most.

        A column that has not varied weighs as one value: its deviation is not known yet.
        """
        most_D = np.where(self._squares_D > 0, count, 1)
        kept_D = np.minimum(self._count_D, most_D)
        self._squares_D *= kept_D / np.maximum(self._count_D, 1)
        self._count_D = kept_D
        self._follow()

    @property
    def count(self) -> NDArray[np.int64]:
        """Values seen per column."""
        return self._count_D

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean per column; 0 before the first value."""
        return self._told_mean_D

    @property
    def std(self) -> NDArray[np.float32]:
        """Standard deviation per column; 1 for a column that has not varied yet, so that it divides safely."""
        return self._told_std_D

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state."""
        return {"count": self._count_D, "mean": self._mean_D, "squares": self._squares_D}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        self._count_D = tensors["count"].copy()
        self._mean_D = tensors["mean"].copy()
        self._squares_D = tensors["squares"].copy()
        self._follow()

    def _follow(self) -> None:
        """Mean and deviation, which are read many times for each change."""
        std_D = np.sqrt(self._squares_D / np.maximum(self._count_D, 1))
        constant_D = std_D <= _CONSTANT * np.maximum(np.abs(self._mean_D), _CONSTANT)
        self._told_mean_D = self._mean_D.astype(np.float32)
        self._told_std_D: NDArray[np.float32] = np.where(constant_D, 1.0, std_D).astype(np.float32)


def embedding_rows(categorical_BC: NDArray[np.uint64], table_rows: int) -> NDArray[np.int64]:
    """Rows [B, C] of 64-bit hashes: 1 + h mod (`table_rows` - 1); 0 for a missing value.

    The hashing trick (Weinberger et al. 2009): memory is bounded and an id never seen before has a row at once; two
    ids may share one.
    """
    row_BC = (categorical_BC % np.uint64(table_rows - 1) + np.uint64(1)).astype(np.int64)
    row_BC *= categorical_BC != MISSING_HASH
    return row_BC
