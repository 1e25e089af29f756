"""Removes a project's topics and what its consumer groups have reached, so that it can start over."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from runtime.errors import GraftError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, REPLAY_GROUP, STREAM_GROUP, TEACHER_GROUP, group_id
from stream.kafka.topics import all_topics

_LEAVE_SECONDS = 8.0  # above the group's session time-out, 6 s, after which a stopped member is out
_POLL_SECONDS = 0.5
_GONE_SECONDS = 30.0
_DELETED = {"OK", "GroupIdNotFoundError"}  # Kafka forgets a group by itself when its last offset is gone


class TopicRemoval:
    """The topics `names` of a project and its groups `groups`, as they are on the broker now."""

    def __init__(self, kafka_servers: str, names: Sequence[str], groups: Sequence[str]) -> None:
        self._kafka_servers = kafka_servers
        self._names = names
        self._groups = groups

    def records(self) -> dict[str, int]:
        """The topics that exist, with how many offsets each holds; transaction markers count, too."""
        with _admin(self._kafka_servers) as admin:
            return {name: _records(admin, name) for name in self._names if name in set(admin.list_topics())}

    def refuse_if_read(self, leave_seconds: float = _LEAVE_SECONDS) -> None:
        """As `refuse_if_joined`, of its groups."""
        refuse_if_joined(self._kafka_servers, self._groups, leave_seconds)

    def remove(self) -> None:
        """Delete the topics and the groups; returns when the broker does not list the topics any more."""
        with _admin(self._kafka_servers) as admin:
            there = set(admin.list_topics())
            if names := [name for name in self._names if name in there]:
                admin.delete_topics(names)
            known = {found["group_id"] for found in admin.list_groups()}
            outcomes = admin.delete_groups(groups) if (groups := [g for g in self._groups if g in known]) else {}
            if refused := {group: outcome for group, outcome in outcomes.items() if outcome not in _DELETED}:
                raise GraftError(f"Kafka at {self._kafka_servers} does not delete these groups: {refused}")
            deadline = time.monotonic() + _GONE_SECONDS
            while left := sorted(set(self._names) & set(admin.list_topics())):
                if time.monotonic() >= deadline:
                    raise GraftError(
                        f"Kafka at {self._kafka_servers} does not delete {', '.join(left)}; has it delete.topic.enable?"
                    )
                time.sleep(_POLL_SECONDS)


def refuse_if_joined(kafka_servers: str, groups: Sequence[str], leave_seconds: float = _LEAVE_SECONDS) -> None:
    """GraftError while a process is a member of one of the groups; one that has just stopped is waited for."""
    deadline = time.monotonic() + leave_seconds
    with _admin(kafka_servers) as admin:
        while members := [name for group in groups for name in _members(admin, group)]:
            if time.monotonic() >= deadline:
                raise GraftError(
                    f"Kafka at {kafka_servers}: these processes still work with it: {', '.join(members)} "
                    "(group/GRAFT_INSTANCE); stop them, then reset again"
                )
            time.sleep(_POLL_SECONDS)


def state_removal(kafka_servers: str, topics: Topics) -> TopicRemoval:
    """What the join remembers: its state log, updates of aggregates under way, and how far the stream has read."""
    names = [topics.aggregate_updates, topics.join_state]
    return TopicRemoval(kafka_servers, names, _stream_groups(kafka_servers, topics))


def whole_removal(kafka_servers: str, topics: Topics) -> TopicRemoval:
    """All topics of the project, the state log among them, and all its groups."""
    others = [group_id(topics, group) for group in (TEACHER_GROUP, LEARNER_GROUP, REPLAY_GROUP)]
    groups = [*_stream_groups(kafka_servers, topics), *others]
    return TopicRemoval(kafka_servers, sorted(all_topics(topics)), groups)


def _stream_groups(kafka_servers: str, topics: Topics) -> list[str]:
    """The stream's group, and those that note its instances' writers."""
    name = group_id(topics, STREAM_GROUP)
    with _admin(kafka_servers) as admin:
        known = [found["group_id"] for found in admin.list_groups()]
    return [name, *sorted(group for group in known if group.startswith(f"{name}-writer-"))]


def _records(admin: KafkaAdminClient, topic: str) -> int:
    (described,) = admin.describe_topics([topic])
    partitions = [TopicPartition(topic, p["partition_index"]) for p in described["partitions"]]
    first, last = (
        admin.list_partition_offsets(dict.fromkeys(partitions, spec))
        for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
    )
    return sum(last[at].offset - first[at].offset for at in partitions)


def _members(admin: KafkaAdminClient, group: str) -> list[str]:
    if group not in {found["group_id"] for found in admin.list_groups()}:
        return []
    members = admin.describe_groups([group])[group]["members"]
    return [f"{group}/{member.get('group_instance_id') or member['member_id']}" for member in members]


@contextmanager
def _admin(kafka_servers: str) -> Iterator[KafkaAdminClient]:
    client = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            yield client
    finally:
        client.close()
