"""A simulated partition of a topic: its records with offsets, transactions, markers, and a beginning that moves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata


@dataclass(eq=False)
class Transaction:
    """What one producer writes between begin and end; decided at one moment, and then marked partition by partition."""

    state: Literal["open", "committed", "aborted"] = "open"
    partitions: dict[TopicPartition, None] = field(default_factory=dict)
    marked: set[TopicPartition] = field(default_factory=set)
    offsets: dict[str, dict[TopicPartition, OffsetAndMetadata]] = field(default_factory=dict)
    """Per group, what it commits of the group's offsets."""
    has_moved_offsets: bool = False

    def is_complete(self) -> bool:
        """Whether it was decided and every partition has its marker."""
        return self.state != "open" and self.has_moved_offsets and self.marked == set(self.partitions)


@dataclass(eq=False)
class Record:
    """A record as the broker keeps it; `is_marker` of a transaction's end, which nobody is given."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    appended_ms: int
    transaction: Transaction | None
    is_marker: bool = False
    stable_ms: float = 0.0
    """When every transaction up to it was decided: from then on it can be read."""


class PartitionLog:
    """The records of one partition. `stable` is the offset of the first one of an open transaction, or the end."""

    def __init__(self, at: TopicPartition) -> None:
        self.at = at
        self.start = self.stable = 0
        self.records: list[Record] = []

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...],
        wall_ms: int,
        now_ms: float,
        transaction: Transaction | None = None,
    ) -> int:
        """Write a record; its offset."""
        record = Record(len(self.records), key, value, headers, wall_ms, transaction)
        self.records.append(record)
        if transaction:
            transaction.partitions[self.at] = None
        self._settle(now_ms)
        return record.offset

    def mark(self, transaction: Transaction, wall_ms: int, now_ms: float) -> None:
        """Write the marker of a decided transaction."""
        transaction.marked.add(self.at)
        self.records.append(Record(len(self.records), None, None, (), wall_ms, transaction, is_marker=True))
        self._settle(now_ms)

    def committed(self, offset: int = 0, *, whole: bool = False) -> Iterator[Record]:
        """What a read-committed reader is given from `offset` on; `whole`: what was deleted, too."""
        for record in self.records[0 if whole else max(offset, self.start) : self.stable]:
            is_aborted = record.transaction is not None and record.transaction.state == "aborted"
            if not record.is_marker and not is_aborted:
                yield record

    def all(self, offset: int) -> Iterator[Record]:
        """What a reader without isolation is given from `offset` on."""
        return (record for record in self.records[offset:] if not record.is_marker)

    def _settle(self, now_ms: float) -> None:
        while self.stable < len(self.records):
            record = self.records[self.stable]
            if record.transaction and self.at not in record.transaction.marked:
                return
            record.stable_ms = now_ms
            self.stable += 1
