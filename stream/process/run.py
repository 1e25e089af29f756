"""The stream process: validates events, joins impressions with feedback, and writes each example exactly once."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    InvalidConfigurationError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedVersionError,
)
from prometheus_client import Gauge

from features.aggregates import Aggregates
from features.online.reader import TimedFeatureReader
from features.push.push_order import StalePushError
from features.spec import FeatureSpec
from runtime.errors import GraftError, ServiceUnavailableError
from runtime.health import HEALTH
from runtime.outage import Outage, StoppedError, wait_for
from runtime.telemetry import StopSignal
from stream.config import StreamConfig, Topics
from stream.join.aggregation import AggregatePusher
from stream.join.partition import Partition
from stream.join.sampling import SamplingConfig
from stream.join.validation import Validator
from stream.kafka import connection
from stream.kafka.groups import replaced_error
from stream.kafka.topics import ensure_topics
from stream.messages import Message, message_of
from stream.process.report import MostlyUnusableError
from stream.process.state_log import FLOOR_BYTES, StateId, state_id
from stream.process.worker import StreamJob, StreamWorker
from stream.tasks import TaskSpec

PAUSED = Gauge(
    "graft_stream_paused", "1 while the stream pauses since nearly no message can be used, else 0", ["topic"]
)

_log = logging.getLogger(__name__)
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 30.0  # between two looks
_NEWEST = 100  # messages of a partition that a look takes
_LEAST = 10  # messages that a look must find
_LOOK_SECONDS = 10.0


class Pause:
    """Looks at the newest messages that come after `error.positions`, until enough of them can be used."""

    def __init__(self, job: StreamJob, error: MostlyUnusableError) -> None:
        self._job = job
        self._error = error
        self._validator = Validator(job.spec, job.tasks)

    def wait(self, stop: StopSignal) -> dict[TopicPartition, int]:
        """The end of the input once it can be used again; nothing after a stop. Until then the process is not ready."""
        of_topic = {"topic": self._error.topic}
        _log.error("pausing: %s", self._error, extra=of_topic)
        PAUSED.labels(self._error.topic).set(1)
        HEALTH.hold(self, str(self._error))
        seconds = _FIRST_SECONDS
        try:
            while not stop.wait(seconds):
                seconds = min(2 * seconds, _LONGEST_SECONDS)
                if ends := self._look():
                    _log.warning("going on: newer messages of %s can be used", self._error.topic, extra=of_topic)
                    return ends
        finally:
            PAUSED.labels(self._error.topic).set(0)
            HEALTH.release(self)
        return {}

    def _look(self) -> dict[TopicPartition, int]:
        """The end of each partition when enough of the newest messages before it can be used; else nothing."""
        try:
            with connection.reaching(self._job.kafka_servers):
                ends, messages = newest(self._job.kafka_servers, self._error.positions)
        except (KafkaError, ServiceUnavailableError) as error:
            _log.debug("the newest messages cannot be read now: %s", error)
            return {}
        unusable = sum(self._unusable(batch) for batch in messages.values())
        count = sum(map(len, messages.values()))
        is_usable = count >= _LEAST and unusable <= self._job.config.max_unusable_share * count
        return ends if is_usable else {}

    def _unusable(self, messages: list[Message]) -> int:
        """How many of one partition's messages a stream would put aside at once."""
        job = self._job
        partition = Partition(messages[0].partition, job.topics, job.config, job.tasks, job.aggregates_factory)
        for message in messages:
            partition.add(message, self._validator, time.time_ns() // 1_000_000)
        return sum(taken.event is None for taken in partition.take(partition.inputs, len(messages)))


def newest(
    kafka_servers: str, positions: Mapping[TopicPartition, int]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, list[Message]]]:
    """The end of each partition, and of those with messages from their position on the newest ones."""
    consumer = connection.consumer(kafka_servers)
    try:
        ends: dict[TopicPartition, int] = consumer.end_offsets(list(positions))
        starts = {at: max(positions[at], end - _NEWEST) for at, end in ends.items() if positions[at] < end}
        consumer.assign(list(starts))
        for at, start in starts.items():
            consumer.seek(at, start)
        return ends, _read(consumer, {at: ends[at] for at in starts})
    finally:
        consumer.close(autocommit=False, timeout_ms=2_000)


def _read(consumer: KafkaConsumer, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, list[Message]]:
    found: dict[TopicPartition, list[Message]] = defaultdict(list)
    deadline = time.monotonic() + _LOOK_SECONDS
    while any(consumer.position(at) < end for at, end in ends.items()) and time.monotonic() < deadline:
        for at, records in consumer.poll(timeout_ms=200).items():
            found[at] += [message_of(record) for record in records if record.offset < ends[at]]
    return found


_HOPELESS = (
    AuthorizationError,
    InvalidConfigurationError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedVersionError,
)
_COMMAND = "graft stream run"
_LOOP = "joining"
_STEADY_SECONDS = 2.0  # above the usual commit_seconds: what fails at every commit is one outage, not many


def run_stream(  # noqa: PLR0913, PLR0917 - the process's parts, named by the command line
    kafka_servers: str,
    config: StreamConfig,
    topics: Topics,
    tasks: Sequence[TaskSpec],
    spec: FeatureSpec,
    reader: TimedFeatureReader,
    aggregates_factory: Callable[[], Aggregates],
    pusher: AggregatePusher,
    instance: str,
    stop: StopSignal,
    *,
    claim_aggregates: Callable[[StateId], None] = lambda _: None,
    sampling: SamplingConfig | None = None,
    log_floor_bytes: int = FLOOR_BYTES,
) -> None:
    """Join until a stop is asked for; what was joined is then committed.

    With Kafka or Redis away, or while nearly no message of an input can be used, it waits and goes on by itself.
    GraftError when another process of this `instance` has taken over; UndecodableError when messages cannot be decoded;
    DataLossError when input messages or saved state are gone; ConfigurationError when the topics do not fit.
    `claim_aggregates` makes the aggregates in Redis this state's own, before any is read or pushed.
    `docs/decisions/001-exactly-once.md` says why nothing is lost or doubled.
    """
    job = StreamJob(
        kafka_servers,
        config,
        topics,
        tasks,
        spec,
        reader,
        aggregates_factory,
        pusher,
        instance,
        sampling or SamplingConfig(),
        log_floor_bytes,
    )
    kafka = Outage("kafka", "starting again from what is committed, nothing is lost")
    redis = Outage("redis", "the stream begins when it is back")
    excused: dict[TopicPartition, int] = {}
    HEALTH.begin(_LOOP)
    while not stop.is_set():
        try:
            ensure_topics(kafka_servers, config, topics)
            state = state_id(kafka_servers, topics.join_state)
            wait_for(partial(claim_aggregates, state), redis, stop)
            _work(job, stop, kafka, excused)
        except MostlyUnusableError as error:
            excused |= Pause(job, error).wait(stop)
        except (KafkaError, ServiceUnavailableError, StalePushError) as error:
            stop.wait(kafka.failed(error))
        except StoppedError:
            return


def _work(job: StreamJob, stop: StopSignal, kafka: Outage, excused: Mapping[TopicPartition, int]) -> None:
    worker = StreamWorker(job, stop, excused)
    steady_at = time.monotonic() + _STEADY_SECONDS
    try:
        while not stop.is_set():
            if worker.step():
                HEALTH.round_ended(_LOOP)
            if time.monotonic() >= steady_at:
                kafka.ended()
        worker.commit()
    except FencedInstanceIdError as error:
        raise replaced_error(_COMMAND, job.instance) from error
    except _HOPELESS as error:
        raise GraftError(f"Kafka at {job.kafka_servers} refuses the stream's work: {error}") from error
    except KafkaError as error:
        if worker.is_replaced():
            raise replaced_error(_COMMAND, job.instance) from error
        raise
    finally:
        worker.close()
