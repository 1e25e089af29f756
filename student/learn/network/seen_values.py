"""What values each column has had so far, and how far from them a value may be.

A bad value cannot stretch its own bound: that comes from order statistics, not from means. Shapes: B rows, X columns,
S places of the sample, R places of the newest values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 256
_NEWEST = 64
"""A fifth or more of what is held, once the sample is thinned: a lasting change is known after about 20 values."""

_FEWEST = 4
"""Values that are known before one counts: the first one of a column has nothing that it could be compared with."""

_BAD_SHARE = 16
"""One held value in this many may be bad, and of few ones two: the bound is a multiple of the largest of the others."""

_REACH = 16.0
"""Times the distance from the median of the farthest good value. At 16, and at 8, no feature or label of 100,000
examples of MovieLens is beyond; of a normal column the bound lies at 30 deviations."""

_FEW_VALUES = 64.0
"""The reach is wider by this over the number of values held: what few of them show is a small part of the column."""

_REFRESH_ROWS = 256
"""Rows after which the bounds follow what is held, and before whenever it has doubled. A value beyond them makes them
follow at once."""


class SeenValues:
    """Holds an even sample of all values of each column, and its newest ones; a NaN is no value.

    What it holds is a function of the values and of where batches end.
    """

    def __init__(self, width: int) -> None:
        self._sample_SX = np.full((_SAMPLE, width), np.nan, np.float32)
        self._newest_RX = np.full((_NEWEST, width), np.nan, np.float32)
        self._seen_X = np.zeros(width, np.int64)
        self._stride_X = np.ones(width, np.int64)
        self._centre_X = np.zeros(width, np.float64)
        self._reach_X = np.full(width, -1.0)
        self._rows = np.zeros(1, np.int64)

    @property
    def centre(self) -> NDArray[np.float64]:
        """The median per column."""
        return self._centre_X

    @property
    def reach(self) -> NDArray[np.float64]:
        """How far from the median a value may be, per column."""
        return self._reach_X

    @property
    def known(self) -> NDArray[np.bool_]:
        """The columns of which enough is known to judge a value."""
        return self._seen_X >= _FEWEST

    def update(self, value_BX: NDArray[np.float32]) -> None:
        """Take B rows in. They count for the bounds by which they are judged."""
        self._remember(value_BX)
        self._rows += len(value_BX)
        if self._rows[0] >= min(_REFRESH_ROWS, self._seen_X.max(initial=0) // 2) or self.far(value_BX).any():
            self._refresh()

    def far(self, value_BX: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The values that are beyond the reach of their columns."""
        return np.asarray(np.abs(value_BX - self._centre_X) > self._reach_X, np.bool_)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {
            "sample": self._sample_SX,
            "newest": self._newest_RX,
            "seen": self._seen_X,
            "stride": self._stride_X,
            "centre": self._centre_X,
            "reach": self._reach_X,
            "rows": self._rows,
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave. A version of an earlier release has none: then it starts anew."""
        for name, own in self.tensors().items():
            if name in tensors:
                own[...] = tensors[name]

    def _remember(self, value_BX: NDArray[np.float32]) -> None:
        present_BX = ~np.isnan(value_BX)
        number_BX = self._seen_X + np.cumsum(present_BX, axis=0) - 1
        self._seen_X += present_BX.sum(axis=0)
        self._thin()
        b, x = np.nonzero(present_BX & (number_BX % self._stride_X == 0))
        self._sample_SX[number_BX[b, x] // self._stride_X[x], x] = value_BX[b, x]
        b, x = np.nonzero(present_BX & (number_BX >= self._seen_X - _NEWEST))
        self._newest_RX[number_BX[b, x] % _NEWEST, x] = value_BX[b, x]

    def _thin(self) -> None:
        """Keep every second value of each full sample, until there is room for all that were seen."""
        while (full_X := self._seen_X > _SAMPLE * self._stride_X).any():
            self._sample_SX[: _SAMPLE // 2, full_X] = self._sample_SX[::2, full_X]
            self._sample_SX[_SAMPLE // 2 :, full_X] = np.nan
            self._stride_X[full_X] *= 2

    def _refresh(self) -> None:
        """Set the bounds to what is held now."""
        newest_RX = np.where(self._stride_X > 1, self._newest_RX, np.nan)  # before, the sample has all values
        held_HX = np.sort(np.concatenate([self._sample_SX, newest_RX]).astype(np.float64), axis=0)
        count_X = (~np.isnan(held_HX)).sum(axis=0)
        self._centre_X[:] = np.where(count_X > 0, _places(held_HX, (count_X - 1) // 2), 0.0)
        distance_HX = np.sort(np.abs(held_HX - self._centre_X), axis=0)
        bad_X = np.maximum(count_X // _BAD_SHARE, np.clip(count_X // _FEWEST, 1, 2))
        farthest_X = np.where(count_X > bad_X, _places(distance_HX, count_X - 1 - bad_X), 0.0)
        # A column that hardly ever varies shows no scale: its size stands for it, and 1 for that of a column of zeros.
        farthest_X = np.where(farthest_X > 0, farthest_X, np.maximum(np.abs(self._centre_X), 1.0))
        self._reach_X[:] = _REACH * (1 + _FEW_VALUES / np.maximum(count_X, 1)) * farthest_X
        self._rows[0] = 0


def _places(sorted_HX: NDArray[np.float64], place_X: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value at `place_X` of each column; at the first place for one below."""
    found_X: NDArray[np.float64] = np.take_along_axis(sorted_HX, np.maximum(place_X, 0)[None], axis=0)[0]
    return found_X
