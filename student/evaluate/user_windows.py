"""Sums over examples in which no user counts for much, such as one who sees hundreds of items in one session.

Shapes: B examples, W places of the window, C columns.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 256
"""Examples that are summed together."""

MOST_OF_A_USER = 4.0
"""Examples of a window: one who has more counts for as many, with less weight on each."""


class UserWindows:
    """Collects columns of examples, and sums them whenever `WINDOW` examples are together, however they came."""

    def __init__(self, columns: int) -> None:
        self._user_W = np.zeros(WINDOW, np.uint64)
        self._part_W = np.ones(WINDOW)
        self._value_WC = np.zeros((WINDOW, columns))
        self._filled = np.zeros(1, np.int64)

    def add(
        self, user_B: NDArray[np.uint64], part_B: NDArray[np.float64], value_BC: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Of each window that these examples fill: the weights of its values, their weighted sum, that of squares.

        [C, 3]; a value that is not finite does not count. `part_B`: as which part of an example each counts, up to 1.
        """
        first = 0
        while first < len(user_B):
            at = int(self._filled[0])
            last = min(len(user_B), first + WINDOW - at)
            self._user_W[at : at + last - first] = user_B[first:last]
            self._part_W[at : at + last - first] = part_B[first:last]
            self._value_WC[at : at + last - first] = value_BC[first:last]
            self._filled += last - first
            first = last
            if self._filled[0] == WINDOW:
                self._filled[0] = 0
                yield weighted_sums(self._value_WC, self._part_W * _weights(self._user_W, self._part_W))

    def clear(self) -> None:
        """Forget the examples of the open window."""
        self._filled[0] = 0

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"users": self._user_W, "parts": self._part_W, "values": self._value_WC, "filled": self._filled}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]


def weighted_sums(value_BC: NDArray[np.float64], weight_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of the finite values, their weighted sum, and the sum of the squares of weighted values, [C, 3]."""
    known_BC = np.isfinite(value_BC)
    weighted_BC = np.where(known_BC, value_BC, 0.0) * weight_B[:, None]
    return np.stack([weight_B @ known_BC, weighted_BC.sum(axis=0), (weighted_BC**2).sum(axis=0)], axis=1)


def _weights(user_B: NDArray[np.uint64], part_B: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place_B = np.unique(user_B, return_inverse=True)
    count_U = np.bincount(place_B, part_B)
    weight_B: NDArray[np.float64] = np.minimum(1.0, MOST_OF_A_USER / count_U)[place_B]
    return weight_B
