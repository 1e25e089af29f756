"""The join's state log: what a partition's state is rebuilt from after a kill or a move to another instance.

Each transaction writes the entries that it changed, `position` among them. When those outgrow the state itself it
writes `snapshot` and then the whole state instead; what lies before a snapshot is deleted. Readers see a transaction
whole or not at all, so a snapshot that is seen is complete, and state and input offsets are always of one moment.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec

from runtime.errors import DataLossError, ServiceUnavailableError
from stream import connection
from stream.groups import end_offsets
from stream.join import Entry
from stream.topics import topic_id

SNAPSHOT = "snapshot"
SNAPSHOT_FLOOR_BYTES = 1_000_000
_GROWTH = 2  # a snapshot is due when the changes since the last one are this many times its size
_POLL_MS = 200
_RESTORE_SECONDS_WITHOUT_PROGRESS = 30  # above the transaction time-out, which ends a killed writer's transaction


class Saved(NamedTuple):
    """A partition's state as its log has it, and the bytes from which it was read."""

    entries: dict[str, bytes]
    bytes_read: int


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


class SnapshotSchedule:
    """Decides when a partition's changes are replaced by a snapshot."""

    def __init__(self, floor_bytes: int, restored_bytes: int = 0) -> None:
        self._floor = floor_bytes
        self._since = restored_bytes
        self._size = 0

    def wrote(self, entries: Sequence[Entry]) -> None:
        """These changes, or `SNAPSHOT` and the whole state, are about to be written."""
        size = sum(len(key) + len(value or b"") for key, value in entries)
        if entries[0][0] == SNAPSHOT:
            self._size, self._since = size, 0
        else:
            self._since += size

    def is_due(self) -> bool:
        """Whether the next transaction should write the whole state."""
        return self._since > max(self._floor, _GROWTH * self._size)


def restore(kafka_servers: str, admin: KafkaAdminClient, topic: str, partition: int) -> Saved:
    """What was committed of a partition's state; empty when nothing was ever committed.

    Waits for open transactions to be decided, so that nothing committed can appear later. DataLossError when the log
    does not begin with a snapshot and its beginning is gone.
    """
    at = TopicPartition(topic, partition)
    reader = connection.consumer(kafka_servers)
    try:
        reader.assign([at])
        start = reader.beginning_offsets([at])[at]
        # After the start: of a process that stood still in between, another owner may have trimmed the log beyond its
        # end of then, and an empty log would look lost. As it is, the reader finds its start gone, and starts again.
        end = admin.list_partition_offsets({at: OffsetSpec.LATEST})[at].offset
        reader.seek(at, start)
        return _fold(_entries(reader, at, end), whole=start == 0, topic=topic, partition=partition)
    finally:
        reader.close()


def trim(admin: KafkaAdminClient, topic: str, partition: int, before: int) -> None:
    """Delete what lies before a committed snapshot's offset."""
    admin.delete_records({TopicPartition(topic, partition): before})


def _entries(reader: KafkaConsumer, at: TopicPartition, end: int) -> Iterator[tuple[str, bytes | None]]:
    polls_left = polls = _RESTORE_SECONDS_WITHOUT_PROGRESS * 1000 // _POLL_MS
    while reader.position(at) < end:
        records = reader.poll(timeout_ms=_POLL_MS).get(at, [])
        for record in records:
            yield record.key.decode(), record.value
        polls_left = polls if records else polls_left - 1
        if polls_left == 0:
            raise ServiceUnavailableError(
                f"{at.topic}-{at.partition}: no progress at offset {reader.position(at)} of {end}; "
                "does a transaction stay open, or is the broker gone?"
            )


def _fold(entries: Iterable[tuple[str, bytes | None]], *, whole: bool, topic: str, partition: int) -> Saved:
    state: dict[str, bytes] = {}
    size = 0
    for key, value in entries:
        size += len(key) + len(value or b"")
        if key == SNAPSHOT:
            state, size, whole = {}, 0, True
        elif value is None:
            state.pop(key, None)
        else:
            state[key] = value
    if not whole:
        raise DataLossError(
            f"{topic}-{partition}: the beginning of the state log is gone and no snapshot is left in it; "
            "its topic must have retention.ms=-1; start again with a new stream.topic_prefix"
        )
    return Saved(state, size)
