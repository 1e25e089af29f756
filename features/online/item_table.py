"""The encoded features of the items that were read last, in the process' own memory.

A row is fresh until its item changes or it is old. One that is no longer fresh stays, for when Redis does not answer.
Belongs to one event loop. Shapes: N rows, B rows of a request, D dense columns, C categorical columns.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from features.spec import EntityId, FeatureBatch

CHANGES = Counter("graft_scorer_item_changes_total", "Items in the scorer's memory of whose change Redis has told")
HELD = Gauge(
    "graft_scorer_items_held",
    "Items whose features the scorer has in its memory; of several workers: in all of theirs",
    multiprocess_mode="livesum",
)

NOWHERE = -1
"""The slot of an item that the table does not hold."""

_FIRST_SLOTS = 1_024
_RANDOM = np.random.default_rng()  # spreads the times at which rows become old: they are not all read at once


class TableLimits(NamedTuple):
    """Of one table."""

    items: int = 100_000
    """More push out those that were read from Redis longest ago. At least as many as a request may have."""
    max_age_seconds: float = 300.0
    """After which a row is read anew, whatever Redis tells; 0: each request reads all its items."""
    max_age_untold_seconds: float = 10.0
    """The same where Redis does not tell of changes, if that is less."""


class Reading(NamedTuple):
    """A read of items that is under way, and those of them that have changed meanwhile."""

    ids: Sequence[EntityId]
    changed: set[EntityId]


class ItemTable:
    """Rows by item, as `FeatureSpec.encode` makes them of the item's features; other columns are 0."""

    def __init__(self, dense: int, categorical: int, limits: TableLimits) -> None:
        self._limits = limits
        self._slots: OrderedDict[EntityId, int] = OrderedDict()
        """The one that was read longest ago comes first."""
        self._readings: list[Reading] = []
        self._stamps = 0
        # The last row is that of NOWHERE, which is never fresh.
        self._dense_ND = np.zeros((1, dense), np.float32)
        self._categorical_NC = np.zeros((1, categorical), np.uint64)
        self._stamp_N = np.zeros(1, np.int64)
        """Grows whenever the categorical values in a slot become others; 0: they have never been any."""
        self._fresh_until_N = np.zeros(1)

    def __len__(self) -> int:
        return len(self._slots)

    def slots_of(self, ids: Sequence[EntityId]) -> NDArray[np.intp]:
        """The slots of B items; NOWHERE for one that is not held. They hold until the next `store`."""
        return np.fromiter(map(self._slots.get, ids, repeat(NOWHERE)), np.intp, len(ids))

    def stale(self, slot_B: NDArray[np.intp], now: float) -> NDArray[np.intp]:
        """Which of these rows must be read before they are used."""
        return (self._fresh_until_N[slot_B] <= now).nonzero()[0]

    def rows(self, slot_B: NDArray[np.intp]) -> tuple[FeatureBatch, NDArray[np.int64]]:
        """Copies of these rows, with their stamps; zeros for NOWHERE."""
        batch = FeatureBatch(self._dense_ND.take(slot_B, axis=0), self._categorical_NC.take(slot_B, axis=0))
        return batch, self._stamp_N.take(slot_B)

    def stamps_of(self, slot_B: NDArray[np.intp]) -> NDArray[np.int64]:
        """The stamps of these slots."""
        return self._stamp_N[slot_B]

    def all_rows(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Copies of the categorical values and the stamps of all slots."""
        return self._categorical_NC.copy(), self._stamp_N.copy()

    @contextmanager
    def reading(self, ids: Sequence[EntityId]) -> Iterator[Reading]:
        """Items are being read: changes may be told before their values are stored."""
        reading = Reading(ids, set())
        if not ids:
            yield reading
            return
        self._readings.append(reading)
        try:
            yield reading
        finally:
            self._readings = [one for one in self._readings if one is not reading]

    def store(self, reading: Reading, batch: FeatureBatch, now: float, *, told: bool) -> None:
        """Take the values of all items that are being read; those that have changed meanwhile are not fresh.

        `told`: Redis tells of their changes from now on.
        """
        limits = self._limits
        oldest = limits.max_age_seconds if told else min(limits.max_age_seconds, limits.max_age_untold_seconds)
        slot_B = np.array([self._slot_for(item_id) for item_id in reading.ids], np.intp)
        is_other_B = (self._stamp_N[slot_B] == 0) | (self._categorical_NC[slot_B] != batch.categorical_BC).any(axis=1)
        self._stamp_N[slot_B[is_other_B]] = self._stamps + 1 + np.arange(is_other_B.sum())
        self._stamps += len(slot_B)
        self._dense_ND[slot_B], self._categorical_NC[slot_B] = batch.dense_BD, batch.categorical_BC
        self._fresh_until_N[slot_B] = now + oldest * (1 - _RANDOM.random(len(slot_B)) / 2)
        if reading.changed:
            self._fresh_until_N[self.slots_of([item_id for item_id in reading.ids if item_id in reading.changed])] = 0
        HELD.set(len(self._slots))

    def change(self, item_id: EntityId) -> None:
        """The item's features are others in Redis now."""
        CHANGES.inc()
        for reading in self._readings:
            reading.changed.add(item_id)
        slot = self._slots.get(item_id, NOWHERE)
        if slot != NOWHERE:
            self._fresh_until_N[slot] = 0

    def change_all(self) -> None:
        """Any of them may be others: nobody tells of changes any more."""
        for reading in self._readings:
            reading.changed.update(reading.ids)
        self._fresh_until_N[:] = 0

    def _slot_for(self, item_id: EntityId) -> int:
        slot = self._slots.pop(item_id, None)
        if slot is None:
            if len(self._slots) >= self._limits.items:
                _, slot = self._slots.popitem(last=False)
            else:
                slot = len(self._slots)
                if slot == len(self._stamp_N) - 1:
                    self._grow()
        self._slots[item_id] = slot
        return slot

    def _grow(self) -> None:
        rows = min(self._limits.items, max(_FIRST_SLOTS, 2 * len(self._slots))) + 1
        self._dense_ND, self._categorical_NC = _grown(self._dense_ND, rows), _grown(self._categorical_NC, rows)
        self._stamp_N, self._fresh_until_N = _grown(self._stamp_N, rows), _grown(self._fresh_until_N, rows)


def _grown(rows_N: NDArray[Any], size: int) -> NDArray[Any]:
    grown = np.zeros((size, *rows_N.shape[1:]), rows_N.dtype)
    grown[: len(rows_N) - 1] = rows_N[:-1]
    return grown
