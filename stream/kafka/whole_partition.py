"""Reads a partition whole: every committed record from its beginning to its end as of now."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec

from runtime.errors import ServiceUnavailableError

_POLL_MS = 200
_SECONDS_WITHOUT_PROGRESS = 30  # above the transaction time-out, which ends a killed writer's transaction


class WholePartition(NamedTuple):
    """The offset at which a partition begins, and its committed records, which are read as they are taken.

    `records` waits for open transactions to be decided, so that nothing committed can appear later before its end.
    ServiceUnavailableError after 30 s without progress; OffsetOutOfRangeError when the beginning was deleted meanwhile.
    """

    begin: int
    records: Iterator[Any]


def whole_partition(reader: KafkaConsumer, admin: KafkaAdminClient, at: TopicPartition) -> WholePartition:
    """The partition as it is now; `reader` is given it, and must read nothing else until the last record was taken."""
    reader.assign([at])
    begin = reader.beginning_offsets([at])[at]
    # After the beginning: of a process that stands still in between, another one may delete records beyond this end,
    # and an empty partition would look lost. As it is, the reader finds its beginning gone.
    end = admin.list_partition_offsets({at: OffsetSpec.LATEST})[at].offset
    reader.seek(at, begin)
    return WholePartition(begin, _records(reader, at, end))


def _records(reader: KafkaConsumer, at: TopicPartition, end: int) -> Iterator[Any]:
    polls_left = polls = _SECONDS_WITHOUT_PROGRESS * 1000 // _POLL_MS
    while (position := reader.position(at)) < end:
        if polls_left == 0:
            raise ServiceUnavailableError(
                f"{at.topic}-{at.partition}: no progress at offset {position} of {end}; "
                "does a transaction stay open, or is the broker gone?"
            )
        yield from reader.poll(timeout_ms=_POLL_MS).get(at, [])
        polls_left = polls if reader.position(at) > position else polls_left - 1
