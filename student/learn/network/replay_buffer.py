"""The reservoir of past examples that steps replay against forgetting. Shapes: B examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from student.learn.batch import Batch, columns, saved_batch


class Reservoir:
    """A uniform sample of all examples added, at most `capacity` of them (algorithm R, Vitter 1985).

    Its draws depend on `seed` and on the order of the examples alone.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity = capacity
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._rows: Batch | None = None
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, self._capacity)

    def add(self, batch: Batch) -> None:
        """Offer the examples of `batch` in order; each takes a free place or that of a random earlier one."""
        if self._capacity == 0:
            return
        if self._rows is None:
            self._rows = Batch(*(np.zeros((self._capacity, c.shape[1]), c.dtype) for c in batch))
        number_B = np.arange(self._seen, self._seen + len(batch))
        place_B = np.where(number_B < self._capacity, number_B, self._random.integers(0, number_B + 1))
        kept_B = np.flatnonzero(place_B < self._capacity)
        for stored, new in columns(self._rows, batch):
            stored[place_B[kept_B]] = new[kept_B]  # of two examples for one place the later one holds
        self._seen += len(batch)

    def draw(self, count: int) -> Batch | None:
        """`count` examples drawn with replacement; None while the reservoir is empty."""
        if self._rows is None or count == 0:
            return None
        place_B = self._random.integers(0, len(self), count)
        return Batch(*(column[place_B] for (column,) in columns(self._rows)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The examples held."""
        rows = self._rows
        return {} if rows is None else {name: getattr(rows, name)[: len(self)] for name in Batch._fields}

    def state(self) -> dict[str, Any]:
        """What is not a tensor: the count of examples seen and the random state."""
        return {"seen": self._seen, "random": self._random.bit_generator.state}

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `state` gave."""
        self._seen = state["seen"]
        self._random.bit_generator.state = state["random"]
        self._rows = None
        if tensors:
            self._rows = Batch(*(self._grown(column) for (column,) in columns(saved_batch(tensors))))

    def _grown(self, column: NDArray[Any]) -> NDArray[Any]:
        grown = np.zeros((self._capacity, column.shape[1]), column.dtype)
        grown[: len(column)] = column
        return grown
