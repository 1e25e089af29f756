"""The teacher's input: requests that the stream writes, new ones or those of a time; the newest where a scorer lags."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from runtime.errors import DataLossError
from runtime.tracing import traceparent_in
from stream.config import Topics
from stream.events import TeacherRequest
from stream.kafka import connection
from stream.kafka.dead_letters import DeadLetter
from stream.kafka.decoding import Decoder
from stream.kafka.errors import UndecodableError, decoded
from stream.kafka.groups import TEACHER_GROUP, group_id, replaced_error
from stream.kafka.topics import partitions_of
from stream.messages import message_of
from stream.positions import Merge

_PEEK_MS = 200


class NewestRequests:
    """Reads at the ends of partitions and commits nothing, so that all it reads comes again in its turn."""

    def __init__(self, kafka_servers: str) -> None:
        self._kafka_servers = kafka_servers
        self._consumer: KafkaConsumer | None = None  # there is none before the first lag

    def poll(self, partitions: Collection[TopicPartition], max_records: int) -> list[TeacherRequest]:
        """At most `max_records` of the newest requests, none of them twice as long as the partitions are the same.

        What cannot be decoded is passed over here. ServiceUnavailableError while Kafka is away.
        """
        if not partitions:
            return []
        with connection.reaching(self._kafka_servers):
            consumer = self._at_the_ends(partitions, max_records // len(partitions) or 1)
            try:
                polled = consumer.poll(timeout_ms=_PEEK_MS, max_records=max_records)
            except (OffsetOutOfRangeError, UndecodableError):
                consumer.seek_to_end()
                return []
        found = []
        for record in (record for records in polled.values() for record in records):
            try:
                found.append(decoded(record, TeacherRequest))
            except UndecodableError:  # the reader of all requests says so
                continue
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()

    def _at_the_ends(self, partitions: Collection[TopicPartition], records: int) -> KafkaConsumer:
        """The consumer, at most so many records before the end of each partition."""
        if self._consumer is None:
            self._consumer = connection.consumer(self._kafka_servers)
        known = self._consumer.assignment()
        if known != set(partitions):
            self._consumer.assign(list(partitions))
        for at, end in self._consumer.end_offsets(list(partitions)).items():
            if at not in known or self._consumer.position(at) < end - records:
                self._consumer.seek(at, max(0, end - records))
        return self._consumer


_log = logging.getLogger(__name__)
_COMMAND = "graft teacher run"
_POLL_MS = 500

REFUSED = "refused"
"""The code of a dead letter that the teacher cannot score."""


class TeacherRequestReader:
    """A member of the teacher group: every request at least once. `instance` lets it back in at once after a kill.

    GraftError when another process of that name has joined in its place; UndecodableError for what cannot be decoded,
    unless an operator lets it be skipped.

    A request that retention deleted before it was read costs a teacher's signal only, so the reader warns and goes on
    from the oldest one that is left.
    """

    def __init__(self, kafka_servers: str, topics: Topics, instance: str) -> None:
        self._kafka_servers = kafka_servers
        self._topics = topics
        self._topic = topics.teacher_requests
        self._uncommitted: dict[str, Any] = {}  # by impression id, what was polled since the last commit
        self._producer: KafkaProducer | None = None
        self._instance = instance
        self._consumer = connection.group_member(kafka_servers, group_id(topics, TEACHER_GROUP), instance)
        self._consumer.subscribe([self._topic])
        self._decoder = Decoder(self._consumer, kafka_servers, topics, TeacherRequest)
        self._newest = NewestRequests(kafka_servers)
        self._oldest_ms: int | None = None

    @property
    def waited_seconds(self) -> float:
        """How long the oldest of the last polled requests had waited, by Kafka's clock and ours; 0 without any."""
        return 0.0 if self._oldest_ms is None else max(0.0, time.time() - self._oldest_ms / 1000)

    @property
    def traceparents(self) -> Iterator[str | None]:
        """Of the requests that were polled since the last commit."""
        return (traceparent_in(raw.headers or ()) for raw in self._uncommitted.values())

    def newest(self, max_records: int) -> list[TeacherRequest]:
        """The newest requests of this member's partitions, before their turn: `poll` gives them again.

        ServiceUnavailableError while Kafka is away.
        """
        return self._newest.poll(self._consumer.assignment(), max_records)

    def poll(self, timeout_seconds: float, max_records: int) -> list[TeacherRequest]:
        """The next requests, at most `max_records`; none after `timeout_seconds`.

        While Kafka is away there are none, or the outage raises ServiceUnavailableError.
        """
        try:
            with connection.reaching(self._kafka_servers):
                batches = self._decoder.poll(timeout_seconds * 1000, max_records)
        except NoOffsetForPartitionError as error:
            self._from_oldest(error.args[0])
            return []
        except OffsetOutOfRangeError as error:
            _log.warning("teacher requests were deleted before they were scored, after %s", error.args[0])
            self._from_oldest(error.args[0])
            return []
        except FencedInstanceIdError as error:
            raise replaced_error(_COMMAND, self._instance) from error
        found = [one for requests in batches.values() for one in requests]
        self._uncommitted |= {one.record.impression_id: one.raw for one in found}
        self._oldest_ms = min((one.raw.timestamp for one in found), default=None)
        return [one.record for one in found]

    def set_aside(self, refused: Sequence[tuple[TeacherRequest, str]]) -> None:
        """Make dead letters of requests that were polled since the last commit, each with the reason.

        When this returns they are written. Again after a failure writes them twice. ServiceUnavailableError while Kafka
        is away.
        """
        with connection.reaching(self._kafka_servers):
            sent = [self._send(request, reason) for request, reason in refused]
            for future in sent:
                future.get(timeout=connection.REQUEST_TIMEOUT_MS / 1000)

    def commit(self) -> None:
        """All that was polled is scored: a restart goes on after it. ServiceUnavailableError while Kafka is away."""
        try:
            with connection.reaching(self._kafka_servers):
                self._consumer.commit()
        except FencedInstanceIdError as error:
            raise replaced_error(_COMMAND, self._instance) from error
        except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError) as error:
            _log.warning("partitions moved before their requests were committed; they are scored again: %s", error)
        self._uncommitted.clear()

    def lag(self) -> int:
        """Offsets between what was polled and the end, in this member's partitions; all that was polled is scored."""
        self._check_membership()
        with connection.reaching(self._kafka_servers):
            ends = self._consumer.end_offsets(list(self._consumer.assignment()))
            return sum(max(0, end - self._position(at)) for at, end in ends.items())

    def close(self) -> None:
        """Leave; what was polled since the last commit is read again."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)
        self._newest.close()
        if self._producer is not None:
            self._producer.close(timeout=2)

    def _send(self, request: TeacherRequest, reason: str) -> Any:
        """Begin to write one dead letter; the future of kafka-python."""
        if self._producer is None:
            self._producer = connection.producer(self._kafka_servers)
        message = message_of(self._uncommitted[request.impression_id])
        key, value, headers = DeadLetter(message, REFUSED, reason, "score").record()
        topic = self._topics.dead_letters(message.topic)
        return self._producer.send(topic, value, key, headers, partition=message.partition)

    def _check_membership(self) -> None:
        """A commit says whether another member has taken this one's place; a poll does not."""
        if self._consumer.assignment() and not self._consumer.sends_heartbeats:
            self.commit()

    def _position(self, at: TopicPartition) -> int:
        """What is polled next; 0 where that is not known yet, as after a poll that ended with the assignment."""
        try:
            return self._consumer.position(at, timeout_ms=0) or 0
        except NoOffsetForPartitionError as error:
            self._from_oldest(error.args[0])
            return 0

    def _from_oldest(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.seek_to_beginning(*(set(partitions) & self._consumer.assignment()))


def offsets_between(
    kafka_servers: str, topics: Topics, since_ms: int, until_ms: int | None
) -> tuple[dict[int, int], dict[int, int]]:
    """Per partition the first offset that was written since `since_ms`, and the first since `until_ms` (wall clock).

    The end as of now, where nothing was written since. ServiceUnavailableError where Kafka has no such topic.
    """
    with (
        closing(connection.admin(kafka_servers)) as admin,
        closing(connection.consumer(kafka_servers)) as consumer,
        connection.reaching(kafka_servers),
    ):
        ends = consumer.end_offsets(partitions_of(admin, [topics.teacher_requests]))
        bounds = []
        for time_ms in (since_ms, until_ms):
            times = {} if time_ms is None else dict.fromkeys(ends, max(0, time_ms))
            found = consumer.offsets_for_times(times) if times else {}
            bounds.append({at.partition: _offset(found.get(at), end) for at, end in ends.items()})
    return bounds[0], bounds[1]


def _offset(found: Any, end: int) -> int:
    """What `offsets_for_times` gives for a partition, or the end."""
    return end if found is None else min(int(found.offset), end)


class PastRequests:
    """The requests from `starts` on and before `ends`, with their partition and offset; whoever makes it closes it.

    Partitions are merged by event time. What retention has deleted meanwhile is passed over. DataLossError: the topic
    ends before them, as after it was made anew. ServiceUnavailableError: Kafka does not answer.
    """

    def __init__(self, kafka_servers: str, topics: Topics, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self._kafka_servers, self._topic = kafka_servers, topics.teacher_requests
        self._starts, self._ends = starts, ends
        self._consumer = connection.consumer(kafka_servers)
        self._decoder = Decoder(self._consumer, kafka_servers, topics, TeacherRequest)

    def __iter__(self) -> Iterator[tuple[int, int, TeacherRequest]]:
        starts = self._begin()
        merge: Merge[TopicPartition, tuple[int, int, TeacherRequest]] = Merge(sorted(starts))
        caught_up: set[TopicPartition] = set()
        while len(caught_up) < len(starts):
            for at, offset, request in self._polled():
                merge.add(at, request.event_time_ms, (at.partition, offset, request))
            caught_up = self._ended()
            yield from merge.take(caught_up)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _begin(self) -> dict[TopicPartition, int]:
        """Go to where each partition with something left begins; these offsets."""
        with connection.reaching(self._kafka_servers):
            oldest = self._consumer.beginning_offsets([TopicPartition(self._topic, p) for p in self._starts])
        wanted = {at: max(self._starts[at.partition], first) for at, first in oldest.items()}
        starts = {at: start for at, start in wanted.items() if start < self._ends[at.partition]}
        self._consumer.assign(list(starts))
        for at, start in starts.items():
            self._consumer.seek(at, start)
        return starts

    def _polled(self) -> Iterator[tuple[TopicPartition, int, TeacherRequest]]:
        """Some requests, or none yet."""
        with connection.reaching(self._kafka_servers):
            try:
                polled = self._decoder.poll(_POLL_MS)
            except OffsetOutOfRangeError as error:
                self._pass_deleted(error.args[0])
                polled = {}
            if not polled:
                self._check_ends()
        for at, requests in polled.items():
            yield from ((at, one.offset, one.record) for one in requests if one.offset < self._ends[at.partition])

    def _ended(self) -> set[TopicPartition]:
        """The partitions of which nothing is left."""
        with connection.reaching(self._kafka_servers):
            positions = {at: self._consumer.position(at) for at in self._consumer.assignment()}
        return {at for at, position in positions.items() if position >= self._ends[at.partition]}

    def _pass_deleted(self, partitions: Collection[TopicPartition]) -> None:
        for at, oldest in self._consumer.beginning_offsets(list(partitions)).items():
            if self._consumer.position(at) < oldest:
                self._consumer.seek(at, oldest)

    def _check_ends(self) -> None:
        for at, end in self._consumer.end_offsets(list(self._consumer.assignment())).items():
            if end < self._ends[at.partition]:
                raise DataLossError(
                    f"topic {at.topic}, partition {at.partition}: its last offset is {end:,} now and was "
                    f"{self._ends[at.partition]:,}: it was made anew; begin anew, without --resume"
                )
