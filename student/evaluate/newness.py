"""Which items and users are new: how often each was seen, in bounded memory. Shapes: B rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.compute import compiled

NEW_EXAMPLES = 10
"""An item or user is new in an example that fewer than this many others of it came before."""

_ROWS = 4
_LANE_BITS = 16


class Newness:
    """Whether an example's item and user are new, each by the examples before it."""

    def __init__(self) -> None:
        self._items, self._users = SeenCounts(), SeenCounts()

    def update(self, user_B: NDArray[np.uint64], item_B: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Count B examples by the hashes of their ids; whether their items and their users were new, [2, B]."""
        return np.stack([self._items.update(item_B), self._users.update(user_B)])

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"items.counts": self._items.counts, "users.counts": self._users.counts}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]


class SeenCounts:
    """Counts of ids up to `NEW_EXAMPLES` in a count-min sketch (Cormode & Muthukrishnan 2005) of 256 KiB.

    An id's 64-bit hash gives its place in each of the four rows, 16 bits each; its count is the smallest of the four.
    So a familiar id is never taken for new. A new one may be taken for familiar where others share all its places: at
    most 1 in 2,500 when there are 10,000 ids, 2 in 5 at 100,000. Only the smallest places are raised (conservative
    update, Estan & Varghese 2002), which makes it rarer.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_ROWS << _LANE_BITS, np.uint8)
        self.update(np.zeros(0, np.uint64))  # compiles it

    def update(self, hash_B: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Count B ids by their 64-bit hashes, in order; whether each was new [B], by those before it."""
        is_new_B = np.empty(len(hash_B), np.bool_)
        _count(self.counts, hash_B, is_new_B)
        return is_new_B


@compiled
def _count(counts: NDArray[np.uint8], hash_B: NDArray[np.uint64], is_new_B: NDArray[np.bool_]) -> None:
    """Count each id once more, up to `NEW_EXAMPLES`."""
    for b in range(len(hash_B)):
        before = NEW_EXAMPLES
        for row in range(_ROWS):
            before = min(before, counts[_place(row, hash_B[b])])
        is_new_B[b] = before < NEW_EXAMPLES
        if is_new_B[b]:
            for row in range(_ROWS):
                place = _place(row, hash_B[b])
                if counts[place] == before:
                    counts[place] = before + 1


@compiled
def _place(row: int, one: np.uint64) -> int:
    return (row << _LANE_BITS) + int((one >> np.uint64(row * _LANE_BITS)) & np.uint64(0xFFFF))
