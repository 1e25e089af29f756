"""Sends an event file to Kafka, at a given pace and no faster than its readers follow."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from kafka import TopicPartition
from kafka.errors import KafkaError

from runtime.errors import GraftError
from runtime.tracing import TRACING, traced
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, STREAM_GROUP, TEACHER_GROUP, end_offsets, lag
from stream.replay.event_file import FileEvent, count_events, read_events
from stream.replay.pace import Pace, at_once, due_batches
from stream.replay.replay_position import ReplayPosition

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.producer.future import RecordMetadata


_BATCH = 500
_LAG_POLL_SECONDS = 0.1


class ReplayCount(NamedTuple):
    """What was sent. Unreadable rows go to the impressions topic, whose dead letters show them."""

    impressions: int = 0
    feedback: int = 0
    unreadable: int = 0


class Sent(NamedTuple):
    """What a replay sent: how many of each kind, and the offsets that they got, of each partition from first to last.

    `dead_letter_ends`: where the dead-letter topics ended before. `resumed_at`: events that an earlier replay had sent.
    """

    events: ReplayCount
    offsets: dict[TopicPartition, range] = {}  # noqa: RUF012 - never changed
    dead_letter_ends: dict[TopicPartition, int] = {}  # noqa: RUF012 - never changed
    resumed_at: int = 0


def replay(  # noqa: PLR0913 - by keyword: how it is sent
    path: Path,
    kafka_servers: str,
    topics: Topics,
    *,
    max_lag: int | None,
    progress: Callable[[int, int | None], None],
    pace: Pace = at_once,
    dry_run: bool = False,
    resume: bool = False,
) -> Sent:
    """Send the events of `path` in their order; all are acknowledged on return.

    `max_lag`: wait while the stream process, or another reader that has begun, is further behind than that many
    records. `progress` is called with the events sent and their total. `resume`: go on where the last replay with it
    ended, also one that was killed; at most the 1,000 events that it was sending come a second time, as duplicates.
    """
    total = count_events(path)
    if dry_run:
        return Sent(_count(read_events(path)))
    count = ReplayCount()
    with _Sender(kafka_servers, topics) as sender:
        position = sender.position(path) if resume else None
        first = sent = position.read() if position else 0
        progress(sent, total)
        started = time.monotonic()
        for due, batch in due_batches(read_events(path, first), pace, _batch_size(max_lag)):
            time.sleep(max(0.0, started + due - time.monotonic()))
            if max_lag is not None:
                sender.wait_for_readers(max_lag)
            sender.send(batch)
            sent += len(batch)
            if position:
                position.write(sent)
            count = _added(count, _count(iter(batch)))
            progress(sent, total)
    return Sent(count, sender.offsets, sender.dead_letter_ends, first)


class _Sender:
    """Sends batches that are acknowledged whole, and knows how far behind the readers are."""

    def __init__(self, kafka_servers: str, topics: Topics) -> None:
        self._kafka_servers = kafka_servers
        self._topics = topics
        self._admin: KafkaAdminClient = connection.admin(kafka_servers)
        self._producer: KafkaProducer = connection.producer(kafka_servers)
        self.offsets: dict[TopicPartition, range] = {}
        with connection.reaching(kafka_servers):
            inputs = (topics.impressions, topics.feedback)
            self.dead_letter_ends = end_offsets(self._admin, [topics.dead_letters(name) for name in inputs])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=5)
        self._admin.close()

    def position(self, path: Path) -> ReplayPosition:
        """How far replays of this file are that can be resumed."""
        return ReplayPosition(self._kafka_servers, self._admin, self._topics, path)

    def send(self, batch: list[FileEvent]) -> None:
        """Send a batch; GraftError names the first message that Kafka did not take."""
        topics = self._topics
        by_kind = {"impression": topics.impressions, "feedback": topics.feedback, "unreadable": topics.impressions}
        tracing = TRACING.batch("send events", len(batch), kind="PRODUCER")
        with connection.reaching(self._kafka_servers), tracing:
            headers = traced(TRACING.traceparent())
            futures = [self._producer.send(by_kind[event.kind], event.value, event.key, headers) for event in batch]
            self._producer.flush()
            for event, future in zip(batch, futures, strict=True):
                try:
                    self._note(future.get(timeout=0))
                except KafkaError as error:
                    raise GraftError(f"Kafka did not take {event.value[:200]!r}: {error}") from error

    def _note(self, sent: "RecordMetadata") -> None:
        at = TopicPartition(sent.topic, sent.partition)
        first = self.offsets[at].start if at in self.offsets else sent.offset
        self.offsets[at] = range(first, sent.offset + 1)

    def wait_for_readers(self, max_lag: int) -> None:
        """Return when the stream process and the others that have begun are at most `max_lag` records behind."""
        while not all(self._is_near(group, max_lag) for group in (STREAM_GROUP, TEACHER_GROUP, LEARNER_GROUP)):
            time.sleep(_LAG_POLL_SECONDS)

    def _is_near(self, group: str, max_lag: int) -> bool:
        with connection.reaching(self._kafka_servers):
            behind = lag(self._admin, self._topics, group)
        return behind.records <= max_lag or not (behind.has_begun or group == STREAM_GROUP)


def _batch_size(max_lag: int | None) -> int:
    """Small enough that the lag stays near its bound."""
    return _BATCH if max_lag is None else min(_BATCH, max(1, max_lag // 4))


def _count(events: Iterator[FileEvent]) -> ReplayCount:
    kinds = [event.kind for event in events]
    return ReplayCount(kinds.count("impression"), kinds.count("feedback"), kinds.count("unreadable"))


def _added(a: ReplayCount, b: ReplayCount) -> ReplayCount:
    return ReplayCount(*(x + y for x, y in zip(a, b, strict=True)))
