"""Sends an event file to Kafka: when each event is due, how far it has come, and no faster than its readers follow."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from runtime.errors import ConfigurationError, GraftError
from runtime.tracing import TRACING, traced
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.groups import (
    LEARNER_GROUP,
    REPLAY_GROUP,
    STREAM_GROUP,
    TEACHER_GROUP,
    committed_offsets,
    end_offsets,
    group_id,
    lag,
)
from stream.replay.event_file import FileEvent, count_events, read_events

if TYPE_CHECKING:
    from kafka import KafkaProducer
    from kafka.producer.future import RecordMetadata


Pace = Callable[[FileEvent], float]
"""Seconds after the replay's start at which an event is due; it is asked for every event, in their order."""

_SLOT_SECONDS = 0.1  # events that are due within it are sent together
_DAY_MS = 86_400_000


def at_once(_event: FileEvent) -> float:
    """Every event is due now."""
    return 0.0


class Rate:
    """So many events per second."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._events = 0

    def __call__(self, _event: FileEvent) -> float:
        """The event after all that were asked for."""
        self._events += 1
        return (self._events - 1) / self._per_second


class EventTime:
    """`speed` times as fast as the event times say; 1: with the pauses that the events had.

    A gap of more than a day counts as a day, so that one wrong time does not hold the others up. An event that is
    earlier than one before it, without a time, or ahead of our clock is due at once.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._reached_ms: int | None = None
        self._waited_ms = 0

    def __call__(self, event: FileEvent) -> float:
        """After the gaps between all events so far."""
        at = event.time_ms
        if at is not None and at <= time.time_ns() // 1_000_000:
            self._take(at)
        return self._waited_ms / 1000 / self._speed

    def _take(self, at_ms: int) -> None:
        gap_ms = at_ms - (at_ms if self._reached_ms is None else self._reached_ms)
        self._waited_ms += min(max(0, gap_ms), _DAY_MS)
        if self._reached_ms is None or gap_ms > 0 or gap_ms < -_DAY_MS:
            self._reached_ms = at_ms


def due_batches(events: Iterator[FileEvent], pace: Pace, most: int) -> Iterator[tuple[float, list[FileEvent]]]:
    """Events that are due at about one time, `most` at a time, with the seconds after the start at which they are.

    An impression goes with the feedback that follows it at once, unless that would double the batch: a sender that has
    to wait between the two for long would find the impression closed.
    """
    due, batch = 0.0, list[FileEvent]()
    for event in events:
        at = pace(event)
        belongs = bool(batch) and event.kind == "feedback" and event.key == batch[-1].key
        is_full = len(batch) >= most and not (belongs and len(batch) < 2 * most)
        if batch and (is_full or at - due >= _SLOT_SECONDS):
            yield due, batch
            batch = []
        due = due if batch else at
        batch.append(event)
    if batch:
        yield due, batch


_MARK_BYTES = 65_536


class ReplayPosition:
    """The events of one file, from its beginning, that a project's topics have."""

    def __init__(self, kafka_servers: str, admin: KafkaAdminClient, topics: Topics, path: Path) -> None:
        self._kafka_servers = kafka_servers
        self._admin = admin
        self._group = group_id(topics, REPLAY_GROUP)
        self._place = TopicPartition(topics.impressions, 0)
        self._path = path
        self._mark = _mark(path)

    def read(self) -> int:
        """How many are sent; 0 where no replay has begun. ConfigurationError when it was one of another file."""
        with connection.reaching(self._kafka_servers):
            found = committed_offsets(self._admin, self._group).get(self._place)
        if found is None:
            return 0
        if found.metadata != self._mark:
            raise ConfigurationError([_other_file(self._path, found.offset)])
        return int(found.offset)

    def write(self, events: int) -> None:
        """Note that the first `events` are sent; GraftError when Kafka does not take it."""
        noted = OffsetAndMetadata(events, self._mark, -1)
        with connection.reaching(self._kafka_servers):
            (outcome,) = self._admin.alter_group_offsets(self._group, {self._place: noted}).values()
        if outcome is not NoError:
            raise GraftError(f"Kafka does not keep how far the replay is (group {self._group}): {outcome.__name__}")


def events_sent(kafka_servers: str, topics: Topics, path: Path) -> int:
    """How many events of a file replays have sent that can be resumed; ConfigurationError as `ReplayPosition.read`."""
    admin = connection.admin(kafka_servers)
    try:
        return ReplayPosition(kafka_servers, admin, topics, path).read()
    finally:
        admin.close()


def _other_file(path: Path, sent: int) -> str:
    return (
        f"{path}: is another file than the one that was replayed up to event {sent:,}, or has changed since; send "
        "what is new as a file of its own without --resume, or begin anew with 'graft reset'"
    )


def _mark(path: Path) -> str:
    """Tells a file from others and from itself with other content: its size, and a digest of how it begins."""
    with path.open("rb") as file:
        head = file.read(_MARK_BYTES)
    return f"{path.stat().st_size} {hashlib.sha256(head).hexdigest()[:16]}"


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
