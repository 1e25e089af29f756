"""The consumer groups of a pair: who reads what, and how far each has come."""

from collections.abc import Iterable

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import GroupIdNotFoundError

from stream.config import Topics

STREAM_GROUP = "graft-stream"
TEACHER_GROUP = "graft-teacher"
LEARNER_GROUP = "graft-learner"


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


def lag(admin: KafkaAdminClient, topics: Topics, group: str) -> int:
    """Offsets between the end of the group's topics and what it has committed.

    Transaction markers count as offsets, so a reader that has read all of a transactional topic may show a few.
    """
    ends = end_offsets(admin, inputs_of(topics, group))
    try:
        committed = admin.list_group_offsets(group_id(topics, group))[group_id(topics, group)]
    except GroupIdNotFoundError:
        committed = {}
    return sum(max(0, end - _offset(committed.get(partition))) for partition, end in ends.items())


def end_offsets(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """The end of each partition of `topics`, open transactions included."""
    partitions = [
        TopicPartition(described["name"], partition["partition_index"])
        for described in admin.describe_topics(list(topics))
        for partition in described["partitions"]
    ]
    found = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return {partition: offset.offset for partition, offset in found.items()}


def _offset(committed: object) -> int:
    return max(0, getattr(committed, "offset", 0))
