"""The input topics and the updates of aggregates, read as a member of the stream group."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping

from kafka import ConsumerRebalanceListener, KafkaAdminClient, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError, OffsetOutOfRangeError
from kafka.structs import ConsumerGroupMetadata

from runtime.errors import DataLossError, GraftError, ServiceUnavailableError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.decoding import pass_over
from stream.kafka.errors import UndecodableError
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.messages import Message, message_of

_log = logging.getLogger(__name__)

# A poll gives all that was fetched, so fetches are small: kafka-python 3.0.12 never again delivers a partition that was
# paused when a poll had left a part of its fetch (dpkp/kafka-python#2981 keeps such parts; docs/decisions/001).
_FETCH = {"max_poll_records": 1_000_000, "max_partition_fetch_bytes": 256 * 1024, "fetch_max_bytes": 4 * 1024 * 1024}

_MOVING_SECONDS = 20.0  # above the group's session time-out (6 s), after which a killed member is out of the way


class Inputs:
    """A consumer of both input topics, and of the updates of aggregates in the same partitions.

    Its owner says where each partition starts; until then it delivers nothing.

    `claim` takes the partitions and the group's identity of this member together. The broker refuses a transaction
    with an identity that has lost its partitions since.
    """

    def __init__(self, kafka_servers: str, topics: Topics, instance: str) -> None:
        self._inputs = (topics.impressions, topics.feedback)
        self._read = (*self._inputs, topics.aggregate_updates)
        self._topics = topics
        self.identity = ConsumerGroupMetadata()
        self._kafka_servers = kafka_servers
        self._instance = instance
        self._group = group_id(topics, STREAM_GROUP)
        self._moves = self._claimed = 0
        self._begun: set[TopicPartition] = set()
        self._oldest: dict[TopicPartition, int] = {}
        self._moving_since: float | None = time.monotonic()
        self._consumer = connection.group_member(kafka_servers, self._group, instance, **_FETCH)
        self._consumer.subscribe(self._read, listener=_Listener(self))

    def poll(self, timeout_ms: float) -> list[Message]:
        """The next messages of the partitions that were started.

        OffsetOutOfRangeError when the next one is gone: to this member, which may have lost its partitions to one that
        has gone on; only `claim` and `start` tell a loss. UndecodableError when it cannot be decoded, unless an
        operator lets the stream skip it.
        """
        try:
            records = self._consumer.poll(timeout_ms=timeout_ms)
        except UndecodableError as error:
            if error.records.topic not in self._inputs:
                raise  # without an update, aggregates would be wrong for ever
            pass_over(self._consumer, self._kafka_servers, self._topics, error)
            return []
        except OffsetOutOfRangeError as error:
            self.ends({at.partition for at in error.args[0]})
            raise
        return [message_of(record) for batch in records.values() for record in batch]

    def are_moving(self) -> bool:
        """Whether a rebalance is under way: polled messages may belong to another member, and nothing can be claimed.

        ServiceUnavailableError when it does not end: then the group is joined anew, and the stream does not stand still
        in silence.
        """
        since = self._moving_since
        if since is not None and time.monotonic() - since > _MOVING_SECONDS:
            raise ServiceUnavailableError(
                f"group {self._group}: no partitions were assigned within {_MOVING_SECONDS:.0f} s of a rebalance"
            )
        return since is not None

    def have_moved(self) -> bool:
        """Whether the assignment has changed since the last `claim`, which must then be repeated."""
        return self._moves != self._claimed

    def claim(self) -> list[int]:
        """The partition numbers that this member has now; none of them delivers before its `start`."""
        self._claimed = self._moves
        self.identity = self._consumer.group_metadata()
        owned = {
            topic: sorted(tp.partition for tp in self._consumer.assignment() if tp.topic == topic)
            for topic in self._read
        }
        numbers = owned[self._topics.impressions]
        if any(of_topic != numbers for of_topic in owned.values()):
            raise GraftError(
                f"group {self._group}: this member must have the same partitions of each topic, but has {owned}; the "
                "topics need the same partition count, and the group's members the same version of graft"
            )
        # Before the state is restored: of a process that stands still in between, another owner may begin meanwhile, or
        # go on and delete the updates that it has counted.
        self._begun = {at for at in self._consumer.assignment() if self._consumer.committed(at)}
        self._oldest = self._consumer.beginning_offsets(list(self._consumer.assignment()))
        return numbers

    def start(self, partition: int, positions: Mapping[str, int]) -> dict[str, int]:
        """Deliver a partition from these offsets; where there are none, from the oldest message that `claim` has seen.

        The offsets that were used. DataLossError when the group has read before but the state that goes with it is
        gone, or when the next message is gone.
        """
        read = [TopicPartition(topic, partition) for topic in self._read]
        oldest = self._oldest
        started: dict[str, int] = {}
        for at in read:
            position = positions.get(at.topic)
            if not positions and at in self._begun:
                raise DataLossError(
                    f"group {self._group} has read {at.topic}-{partition}, but the join's state log is empty; restore "
                    "that topic, or start again with a new stream.topic_prefix"
                )
            started[at.topic] = oldest[at] if position is None else position
            if started[at.topic] < oldest[at]:
                raise DataLossError(
                    f"{at.topic}-{partition}: the next message to read is {position}, but the oldest one on the broker "
                    f"is {oldest[at]}: they were deleted before they were read; give the topic a longer retention, and "
                    "start again with a new stream.topic_prefix"
                )
            self._consumer.seek(at, started[at.topic])
        self._consumer.resume(*read)
        return started

    def ends(self, partitions: Iterable[int]) -> dict[TopicPartition, int]:
        """The offsets at which each input of these partitions ends now.

        DataLossError when one ends before what was read of it: what comes before that would be left out.
        """
        wanted = [TopicPartition(topic, p) for p in partitions for topic in self._inputs]
        if not wanted:
            return {}
        found: dict[TopicPartition, int] = self._consumer.end_offsets(wanted)
        for at, end in found.items():
            if (position := self._consumer.position(at)) > end:
                raise DataLossError(
                    f"{at.topic}-{at.partition}: the next message to read is {position}, but the topic ends at {end}: "
                    "it was made anew, or its broker has lost messages; start again with a new stream.topic_prefix"
                )
        return found

    def caught_up(self, ends: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """The inputs of which everything before `ends` has been polled."""
        return {at for at, end in ends.items() if self._consumer.position(at) >= end}

    def hold(self, full: set[TopicPartition]) -> None:
        """Stop fetching the `full` inputs, and fetch all others."""
        paused = self._consumer.paused()
        self._consumer.pause(*(full - paused))
        self._consumer.resume(*(paused - full))

    def is_replaced(self, admin: KafkaAdminClient) -> bool:
        """Whether another process of this instance's name has taken its place in the group."""
        try:
            members = admin.describe_groups([self._group])[self._group]["members"]
        except (KafkaError, KeyError):
            return False
        return any(
            member.get("group_instance_id") == self._instance and member["member_id"] != self.identity.member_id
            for member in members
        )

    def check_membership(self, admin: KafkaAdminClient) -> None:
        """FencedInstanceIdError when `is_replaced`; to be called between a `claim` and the next move.

        Only asked for where heartbeats have stopped, since a poll does not say that one was refused.
        """
        if not self._consumer.sends_heartbeats and self.is_replaced(admin):
            raise FencedInstanceIdError

    def close(self) -> None:
        """Leave without a commit; a static member keeps its partitions until its session ends."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python is untyped
    """Runs on kafka-python's thread: it only stops the new partitions until their owner has restored them."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 - kafka-python's signature
        self._inputs._moving_since = time.monotonic()  # noqa: SLF001 - its own listener

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        consumer = self._inputs._consumer  # noqa: SLF001 - its own listener
        for at in assigned:
            consumer.seek(at, 0)  # any position, so that kafka-python looks for none; `start` sets the true one
        consumer.pause(*assigned)
        # Last, so that no claim lies between these and the pause, and is undone by it.
        self._inputs._moves += 1  # noqa: SLF001 - its own listener
        self._inputs._moving_since = None  # noqa: SLF001 - its own listener
