"""Which entries of a state log are live and where they stand, as its one writer knows it: pure, without Kafka.

The log is cleaned by its writer. While more than half of it is dead, each transaction also writes the oldest live
entries anew, half as many bytes of them as it writes of its own; what then lies before the oldest live entry can be
deleted. So no transaction grows with the state, and the log, thus a restart, stays within a constant multiple of it.

Why nothing that was deleted comes back: the log loses its beginning only. An entry and the later record that replaces
or deletes it are either both read, in their order, or the later one alone is, or neither. So a record that deletes is
itself dead from the start, and is never written anew. The same holds for a state that was read from the log.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

Entry = tuple[str, bytes | None]
"""A key of the saved state and its value; None: the key is gone."""

BEGINS_AT = "begins_at"
"""Key of the record, in each transaction, of the offset before which everything is dead: the log may begin there."""

_SNAPSHOT = "snapshot"  # earlier versions of graft wrote it before the whole state, and deleted what lay before it
_GROWTH = 2  # cleaning is due when the log is this many times the live entries
_ANEW = 2  # of its own bytes a transaction writes one in so many of old entries
_TRIM = 4  # the dead beginning is deleted when it is one in so many bytes of the log


class Record(NamedTuple):
    """A committed entry of the log, and the offset of the Kafka record that holds it, perhaps with others."""

    offset: int
    key: str
    value: bytes | None


class _Place(NamedTuple):
    """Where an entry was written last: its offset, the bytes of the log before it, and its own."""

    offset: int
    before_bytes: int
    size: int


class LogCleaner:
    """One partition's state log. `floor_bytes` of dead records are left alone, however small the state is.

    Call `wrote` for each committed record that is read, in its order; then, for each transaction, `append` and, once
    it is committed, `committed`. After a transaction that may have failed, read the log again.
    """

    def __init__(self, floor_bytes: int) -> None:
        self._floor = floor_bytes
        self._live: OrderedDict[str, _Place] = OrderedDict()  # by their last write; a dict is slow to give its first
        self._live_bytes = 0
        self._end = _Place(0, 0, 0)
        self._head = self._end
        self._trimmed_bytes = 0
        self._appended: list[Entry] = []

    def wrote(self, offset: int, key: str, value: bytes | None) -> None:
        """This record is in the log, after all that were told of before.

        Of a record that had to be sent twice the broker may tell no offset, but -1: then it counts as standing where
        the one before it stands, which is never too late in the log.
        """
        self._drop(key)
        offset = max(offset, self._end.offset)
        size = _size(key, value)
        if value is not None and key != BEGINS_AT:
            self._live[key] = _Place(offset, self._end.before_bytes, size)
            self._live_bytes += size
        self._end = _Place(offset, self._end.before_bytes + size, 0)

    def append(self, changes: Sequence[Entry], entry: Callable[[str], bytes | None]) -> list[Entry]:
        """All that the next transaction writes for these changes; `entry` gives an unchanged key's value again.

        At most half as many bytes more than the changes, one entry and `BEGINS_AT`.
        """
        budget = sum(_size(*change) for change in changes) // _ANEW if self._is_sparse() else 0
        for key, _ in changes:
            self._drop(key)
        self._appended = [*changes, *self._oldest(budget, entry)]
        # What this transaction itself writes stands after the end, so the head is known before its offsets are.
        self._head = next(iter(self._live.values()), self._end)
        self._appended.append((BEGINS_AT, str(self._head.offset).encode()))
        return self._appended

    def committed(self, offsets: Sequence[int]) -> int | None:
        """Take the offsets that the last `append` got; the offset before which to delete now, None while it can wait.

        It is the offset that the transaction itself names, so a reader of the log never misses more than that allows.
        """
        for (key, value), offset in zip(self._appended, offsets, strict=True):
            self.wrote(offset, key, value)
        dead_bytes = self._head.before_bytes - self._trimmed_bytes
        log_bytes = self._end.before_bytes - self._trimmed_bytes
        if not dead_bytes or _TRIM * dead_bytes < log_bytes + self._floor:
            return None
        self._trimmed_bytes = self._head.before_bytes
        return self._head.offset

    def _is_sparse(self) -> bool:
        first = next(iter(self._live.values()), self._end)
        return self._end.before_bytes - first.before_bytes > _GROWTH * self._live_bytes + self._floor

    def _oldest(self, budget: int, entry: Callable[[str], bytes | None]) -> Iterator[Entry]:
        while budget > 0 and self._live:
            key = next(iter(self._live))
            budget -= self._live[key].size
            self._drop(key)
            yield key, entry(key)

    def _drop(self, key: str) -> None:
        if place := self._live.pop(key, None):
            self._live_bytes -= place.size


class Saved(NamedTuple):
    """A partition's state as its log has it, the log's cleaner, and the offset before which all may be deleted."""

    entries: dict[str, bytes]
    cleaner: LogCleaner
    begins_at: int


def saved_state(records: Iterable[Record], floor_bytes: int) -> Saved:
    """What the records of a log add up to. Without any its state begins at 0, where nothing is missing."""
    entries, cleaner, begins_at = dict[str, bytes](), LogCleaner(floor_bytes), 0
    for record in records:
        if record.key == _SNAPSHOT:
            entries, cleaner, begins_at = {}, LogCleaner(floor_bytes), record.offset
            continue
        cleaner.wrote(*record)
        if record.value is None:
            entries.pop(record.key, None)
        elif record.key == BEGINS_AT:
            begins_at = int(record.value)
        else:
            entries[record.key] = record.value
    return Saved(entries, cleaner, begins_at)


def _size(key: str, value: bytes | None) -> int:
    """Bytes of a record, without Kafka's own."""
    return len(key) + len(value or b"")
