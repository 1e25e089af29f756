"""The stream's pause while nearly no message of an input can be used."""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import Gauge

from runtime.errors import ServiceUnavailableError
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from stream.join.partition import Partition
from stream.join.validation import Validator
from stream.kafka import connection
from stream.messages import Message, message_of
from stream.process.unusable import MostlyUnusableError
from stream.process.worker import StreamJob

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
