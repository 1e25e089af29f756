"""Which ids are remembered, and where: a hash table in arrays from which the id seen longest ago leaves first.

Slots count from 1; slot 0 is no id's. Shapes: N slots, slot 0 among them, H buckets (a power of two).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.compute import compiled

NO_ID = np.uint64(0)
"""The hash of a missing value, which is never remembered."""


class IdTable(NamedTuple):
    """Chains of slots by the low bits of their key, and a ring of them by age around slot 0."""

    key_N: NDArray[np.uint64]
    bucket_H: NDArray[np.int32]
    chain_N: NDArray[np.int32]
    older_N: NDArray[np.int32]
    newer_N: NDArray[np.int32]
    used: NDArray[np.int64]
    """[1]: slots in use; they are the first ones."""

    def slots_by_age(self) -> NDArray[np.int32]:
        """The slots in use, from the id seen longest ago on."""
        return _by_age(self.newer_N, int(self.used[0]))


def empty_table(capacity: int) -> IdTable:
    """A table of at most `capacity` ids."""
    slots, buckets = capacity + 1, 1 << (2 * capacity - 1).bit_length()
    return IdTable(
        np.zeros(slots, np.uint64),
        np.zeros(buckets, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(1, np.int64),
    )


def take(table: IdTable, key_B: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The slots [B] of ids that are seen now, in order, and whether each is new to its id: free, or another's before.

    One slot may stand for two ids here, first for one that leaves and then for one that comes. A missing value has 0.
    """
    slot_B, fresh_B = np.zeros(len(key_B), np.int64), np.zeros(len(key_B), np.bool_)
    _take(table, key_B, slot_B, fresh_B)
    return slot_B, fresh_B


def find(table: IdTable, key_B: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The slots [B] of ids; 0 for one that is not remembered."""
    slot_B = np.zeros(len(key_B), np.int64)
    _find(table, key_B, slot_B)
    return slot_B


@compiled
def _find(table: IdTable, key_B: NDArray[np.uint64], slot_B: NDArray[np.int64]) -> None:
    for b in range(len(key_B)):
        slot_B[b] = _slot(table, key_B[b])


@compiled
def _take(table: IdTable, key_B: NDArray[np.uint64], slot_B: NDArray[np.int64], fresh_B: NDArray[np.bool_]) -> None:
    for b in range(len(key_B)):
        if key_B[b] == NO_ID:
            continue
        slot = _slot(table, key_B[b])
        if slot == 0:
            fresh_B[b] = True
            slot = _free(table)
            place = key_B[b] & np.uint64(len(table.bucket_H) - 1)
            table.key_N[slot], table.chain_N[slot] = key_B[b], table.bucket_H[place]
            table.bucket_H[place] = slot
        else:
            _unlink(table, slot)
        newest = table.older_N[0]
        table.newer_N[newest], table.older_N[slot] = slot, newest
        table.newer_N[slot], table.older_N[0] = 0, slot
        slot_B[b] = slot


@compiled
def _slot(table: IdTable, key: np.uint64) -> int:
    slot = table.bucket_H[key & np.uint64(len(table.bucket_H) - 1)]
    while slot != 0 and table.key_N[slot] != key:
        slot = table.chain_N[slot]
    return int(slot)


@compiled
def _free(table: IdTable) -> int:
    """A slot for a new id: one never used, or that of the oldest id, which is forgotten."""
    if table.used[0] < len(table.key_N) - 1:
        table.used[0] += 1
        return int(table.used[0])
    slot = int(table.newer_N[0])
    _unlink(table, slot)
    place = table.key_N[slot] & np.uint64(len(table.bucket_H) - 1)
    before = table.bucket_H[place]
    if before == slot:
        table.bucket_H[place] = table.chain_N[slot]
        return slot
    while table.chain_N[before] != slot:
        before = table.chain_N[before]
    table.chain_N[before] = table.chain_N[slot]
    return slot


@compiled
def _unlink(table: IdTable, slot: int) -> None:
    """Take a slot out of the ring of ages."""
    older, newer = table.older_N[slot], table.newer_N[slot]
    table.newer_N[older], table.older_N[newer] = newer, older


@compiled
def _by_age(newer_N: NDArray[np.int32], used: int) -> NDArray[np.int32]:
    slots = np.empty(used, np.int32)
    slot = newer_N[0]
    for n in range(used):
        slots[n] = slot
        slot = newer_N[slot]
    return slots
