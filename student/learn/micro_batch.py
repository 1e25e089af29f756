"""Cuts the log of examples into micro-batches. Where a batch ends depends on the log alone, never on the wall clock."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from stream.events import Example
from stream.positions import Positions


class Record(Protocol):
    """An example and its place in the examples topic."""

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset in that partition."""
        ...

    @property
    def example(self) -> Example:
        """The joined impression."""
        ...


class MicroBatches:
    """Collects records until a batch is full, or an example comes `max_wait_seconds` of event time after its first.

    That example begins the next batch. The last, open batch waits for the log to go on.
    """

    def __init__(self, size: int, max_wait_seconds: float) -> None:
        self._size = size
        self._max_wait_ms = max_wait_seconds * 1000
        self._open: list[Record] = []

    def add(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """The batches that `records`, next in the log, close. Take them all before the next call."""
        for record in records:
            if self._open and self._is_late(record):
                yield self._close()
            self._open.append(record)
            if len(self._open) == self._size:
                yield self._close()

    def _is_late(self, record: Record) -> bool:
        return record.example.event_time_ms - self._open[0].example.event_time_ms >= self._max_wait_ms

    def _close(self) -> list[Record]:
        batch, self._open = self._open, []
        return batch


def offsets_after(offsets: Mapping[int, int], batch: Sequence[Record]) -> dict[int, int]:
    """The next offset of each partition once `batch` is learnt; OffsetError when its offsets do not rise."""
    positions = Positions(lambda partition: f"the examples topic, partition {partition}", offsets)
    for record in batch:
        positions.take(record.partition, record.offset)
    return dict(positions)
