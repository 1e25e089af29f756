"""The consumer groups of a project: who reads what, and how far each has come."""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    GroupIdNotFoundError,
    NotCoordinatorError,
)
from kafka.structs import OffsetAndMetadata

from runtime.errors import GraftError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.topics import partitions_of

STREAM_GROUP = "graft-stream"
TEACHER_GROUP = "graft-teacher"
LEARNER_GROUP = "graft-learner"
REPLAY_GROUP = "graft-replay"
"""Nobody is its member: it has how far a replay is, see stream/replay/replay.py."""

_COORDINATOR_IS_SOUGHT = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
_COORDINATOR_SECONDS = 10.0


def group_id(topics: Topics, group: str) -> str:
    """The name of `group` on the broker: pairs that share a broker share no group."""
    return f"{topics.prefix}{group}"


def inputs_of(topics: Topics, group: str) -> tuple[str, ...]:
    """The topics that `group` reads."""
    return {
        STREAM_GROUP: (topics.impressions, topics.feedback),
        TEACHER_GROUP: (topics.teacher_requests,),
        LEARNER_GROUP: (topics.examples,),
    }[group]


def replaced_error(command: str, instance: str) -> GraftError:
    """Says that this process must end since another one has its place in the group, and what to do."""
    return GraftError(
        f"another '{command}' process named {instance!r} has joined and taken over; each needs a GRAFT_INSTANCE of its "
        "own (without one it has its host's name)"
    )


class Lag(NamedTuple):
    """How far a group is behind, in offsets; whether it has committed anything yet.

    Transaction markers count as offsets, so a reader that has read all of a transactional topic may show a few.
    """

    records: int
    has_begun: bool


def lag_of(kafka_servers: str, topics: Topics, group: str) -> Lag:
    """As `lag`, by a connection of its own."""
    admin = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            return lag(admin, topics, group)
    finally:
        admin.close()


def lag(admin: KafkaAdminClient, topics: Topics, group: str) -> Lag:
    """How far `group` is behind the end of its topics."""
    ends = end_offsets(admin, inputs_of(topics, group))
    committed = committed_offsets(admin, group_id(topics, group))
    done = {at: found.offset for at, found in committed.items() if at in ends}
    return Lag(sum(max(0, end - done.get(at, 0)) for at, end in ends.items()), bool(done))


def committed_offsets(admin: KafkaAdminClient, group: str) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """What the group of this name has committed; nothing where it has not begun.

    A broker that is fresh or comes back has no coordinator of the group yet; its error after 10 s.
    """
    deadline = time.monotonic() + _COORDINATOR_SECONDS
    while True:
        try:
            found: Mapping[TopicPartition, OffsetAndMetadata] = admin.list_group_offsets(group).get(group, {})
            return {place: one for place, one in found.items() if one.offset >= 0}
        except GroupIdNotFoundError:
            return {}
        except _COORDINATOR_IS_SOUGHT:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end_offsets(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """The end of each partition of `topics`, open transactions included. ServiceUnavailableError as `described`."""
    found = admin.list_partition_offsets(dict.fromkeys(partitions_of(admin, topics), OffsetSpec.LATEST))
    return {partition: offset.offset for partition, offset in found.items()}
