"""The join's state log: what a partition's state is rebuilt from after a kill or a move to another instance.

Each transaction writes the entries that it changed, `position` among them, and some old ones anew, so that the
beginning of the log can be deleted (`stream/join/log_cleaner.py`). Readers see a transaction whole or not at all, so
state and input offsets are always of one moment.

A record's value holds many entries, since each record costs its client much time:

    count, then for each entry: bytes of its key, bytes of its value (-1: the key is gone), key, value

Numbers have four bytes, the lowest first; keys are UTF-8.
"""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, TopicPartition

from runtime.errors import DataLossError
from stream.join.log_cleaner import Entry, LogCleaner, Record, saved_state
from stream.kafka import connection
from stream.kafka.groups import end_offsets
from stream.kafka.topics import topic_id, whole_partition
from stream.kafka.transactions import Outgoing

_MOST_BYTES = 256 * 1024  # of a record, unless its only entry is larger: so much is deleted from a log at a time
_COUNT = struct.Struct("<I")
_SIZES = struct.Struct("<Ii")


def packed(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The values of the records that hold these entries in their order."""
    parts: list[bytes] = []
    count = size = 0
    for key, value in entries:
        name = key.encode()
        added = _SIZES.size + len(name) + len(value or b"")
        if count and size + added > _MOST_BYTES:
            yield _COUNT.pack(count) + b"".join(parts)
            parts, count, size = [], 0, 0
        parts += _SIZES.pack(len(name), -1 if value is None else len(value)), name, value or b""
        count += 1
        size += added
    if count:
        yield _COUNT.pack(count) + b"".join(parts)


def count_of(value: bytes) -> int:
    """How many entries a record's value holds."""
    (count,) = _COUNT.unpack_from(value)
    return int(count)


def unpacked(value: bytes) -> Iterator[Entry]:
    """The entries of a record's value."""
    at = _COUNT.size
    while at < len(value):
        key_size, value_size = _SIZES.unpack_from(value, at)
        begin = at + _SIZES.size + key_size
        at = begin + max(value_size, 0)
        yield value[begin - key_size : begin].decode(), None if value_size < 0 else value[begin:at]


FLOOR_BYTES = 4_000_000  # of dead records that are left alone: a restart reads them in a fraction of a second


class StateId(NamedTuple):
    """Which state log this is, and whether nothing was ever written to it."""

    name: str
    is_new: bool


def state_id(kafka_servers: str, topic: str) -> StateId:
    """The state log's name, with Kafka's id of its topic where the broker tells one: made anew it is another one."""
    its_id = topic_id(kafka_servers, topic)
    admin = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            ends = end_offsets(admin, [topic])
    finally:
        admin.close()
    return StateId(f"{topic} ({its_id})" if its_id else topic, not any(ends.values()))


class StateLog:
    """The state log of the partitions that one process owns: their only writer, unless it is a zombie.

    `floor_bytes` of dead records are left alone in each partition.
    """

    def __init__(self, kafka_servers: str, admin: KafkaAdminClient, topic: str, floor_bytes: int) -> None:
        self._kafka_servers, self._admin = kafka_servers, admin
        self._topic = topic
        self._floor = floor_bytes
        self._cleaners: dict[int, LogCleaner] = {}

    def restore(self, partition: int) -> dict[str, bytes]:
        """What was committed of a partition's state; empty when nothing was ever committed.

        Waits for open transactions to be decided, so that nothing committed can appear later. DataLossError when more
        of the log's beginning is gone than its writer has allowed.
        """
        at = TopicPartition(self._topic, partition)
        reader = connection.consumer(self._kafka_servers)
        try:
            whole = whole_partition(reader, self._admin, at)
            saved = saved_state((entry for record in whole.records for entry in entries_of(record)), self._floor)
        finally:
            reader.close()
        if whole.begin > saved.begins_at:
            raise DataLossError(
                f"{self._topic}-{partition}: the state log begins at offset {whole.begin}, its state at "
                f"{saved.begins_at} or after it; its topic must have retention.ms=-1; start again with a new "
                "stream.topic_prefix"
            )
        self._cleaners[partition] = saved.cleaner
        return saved.entries

    def append(self, partition: int, changes: Sequence[Entry], entry: Callable[[str], bytes | None]) -> list[Outgoing]:
        """What the next transaction writes for these changes; `entry` gives an unchanged key's value again."""
        entries = self._cleaners[partition].append(changes, entry)
        return [Outgoing(self._topic, partition, None, value) for value in packed(entries)]

    def committed(self, records: Sequence[Outgoing], offsets: Sequence[int]) -> None:
        """The transaction was committed, its records with these offsets: delete what is dead now where that is much."""
        own: dict[int, list[int]] = defaultdict(list)
        for record, offset in zip(records, offsets, strict=True):
            if record.topic == self._topic:
                own[record.partition] += [offset] * count_of(record.value or b"")
        for partition, its_offsets in own.items():
            if (before := self._cleaners[partition].committed(its_offsets)) is not None:
                self._admin.delete_records({TopicPartition(self._topic, partition): before})


def entries_of(record: Any) -> Iterator[Record]:
    """The entries of a record that kafka-python gave; earlier versions of graft wrote a record with a key for each."""
    entries = unpacked(record.value) if record.key is None else [(record.key.decode(), record.value)]
    return (Record(record.offset, *entry) for entry in entries)
