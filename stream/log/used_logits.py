"""The topic `used-logits`: what a learner had of its teacher for each example.

A record stands in the partition of its examples. It is JSON (`stream.events.UsedLogits`), of up to 256 examples. See
docs/decisions/020-logits-in-the-example-log.md.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError, RetriableError

from runtime.errors import DataLossError, GraftError
from runtime.outage import Outage
from stream.config import Topics
from stream.events import UsedLogits, impression_mark
from stream.kafka import connection
from stream.kafka.decoding import Decoder
from stream.kafka.topics import unheard_error

_log = logging.getLogger(__name__)

_MOST_ROWS = 256
"""Examples of one record: some 20 kB."""

_MOST_WAITING_BYTES = 32 * 1024 * 1024  # what waits for Kafka at most: some 400,000 examples of three logits
_FLUSH_SECONDS = 5.0  # how long a learner stands at most before it learns on without a version


class UsedRow(NamedTuple):
    """An example's place and impression, and what its learner had of the teacher; `logits` are None for a miss."""

    partition: int
    offset: int
    impression_id: str
    logits: list[float] | None


class UsedLogitsWriter:
    """Writes what one learner used. What was added is in the topic once `flush` has said so.

    `learner`: the id of its registry. `generation`: the digest of what makes its logits. `topic_id`: Kafka's id of the
    examples topic. ServiceUnavailableError when Kafka does not answer.
    """

    def __init__(
        self, kafka_servers: str, topics: Topics, *, learner: str, generation: str, topic_id: str | None
    ) -> None:
        self._topic = topics.used_logits
        self._of_learner = {"topic_id": topic_id, "learner": learner, "generation": generation}
        self._open: dict[int, list[UsedRow]] = {}
        self._waiting: list[_Message] = []
        self._waiting_bytes = 0
        self._kafka = Outage("kafka", "no version is published until it has the logits that were used")
        self._producer = connection.producer(kafka_servers)
        try:
            with connection.reaching(kafka_servers):
                self._producer.partitions_for(self._topic)  # now, so that no `add` waits for it
        except BaseException:
            self.close()
            raise

    @property
    def is_full(self) -> bool:
        """Whether so much waits for Kafka that it is time to `flush`."""
        return self._waiting_bytes > _MOST_WAITING_BYTES

    def add(self, rows: Sequence[UsedRow]) -> None:
        """Take what was used for these examples; each partition's in the order in which they are learnt."""
        for row in rows:
            open_rows = self._open.setdefault(row.partition, [])
            open_rows.append(row)
            if len(open_rows) >= _MOST_ROWS:
                self._close_record(row.partition)

    def flush(self) -> bool:
        """Whether all that was added is in the topic now; False when Kafka has not taken it within 5 s.

        Then it waits for the next call. GraftError when Kafka refuses it.
        """
        for partition in list(self._open):
            self._close_record(partition)
        if not self._waiting:
            return True
        error = self._failure()
        if error is None:
            self._waiting, self._waiting_bytes = [], 0
            self._kafka.ended()
            return True
        if not isinstance(error, RetriableError):
            raise GraftError(
                f"topic {self._topic} does not take the logits that were used ({error}); is its max.message.bytes "
                "16000000, and may this process write to it?"
            ) from error
        self._kafka.failed(error)  # no wait here: the next flush is the next try
        return False

    def close(self) -> None:
        """Let go of the connections; what is not flushed may be lost."""
        self._kafka.forget()
        self._producer.close(timeout=5)

    def _close_record(self, partition: int) -> None:
        rows = self._open.pop(partition)
        record = UsedLogits.of_checked(
            {
                **self._of_learner,
                "offsets": [row.offset for row in rows],
                "impressions": [impression_mark(row.impression_id) for row in rows],
                "logits": [row.logits for row in rows],
            }
        )
        message = _Message(partition, record.model_dump_json().encode())
        self._waiting.append(message)
        self._waiting_bytes += len(message.value)
        self._send(message)

    def _send(self, message: "_Message") -> None:
        try:
            message.sent = self._producer.send(self._topic, message.value, partition=message.partition)
        except RetriableError as error:
            _log.debug("not sent now, but with the next flush: %s", error)

    def _failure(self) -> KafkaError | None:
        """Wait for what is on its way; None when Kafka has all of it. After a failure all is sent again, in order."""
        if any(message.has_failed for message in self._waiting):
            for message in self._waiting:
                self._send(message)
        try:
            self._producer.flush(timeout=_FLUSH_SECONDS)
        except KafkaError as error:
            return error
        failed = [message for message in self._waiting if message.has_failed]
        return failed[0].failure() if failed else None


class _Message:
    """A record on its way; `sent` is kafka-python's future of it."""

    def __init__(self, partition: int, value: bytes) -> None:
        self.partition = partition
        self.value = value
        self.sent: Any = None

    @property
    def has_failed(self) -> bool:
        """Whether it must be sent again."""
        return self.sent is None or bool(self.sent.failed())

    def failure(self) -> KafkaError:
        """Why it failed."""
        error = None if self.sent is None else self.sent.exception
        return error if isinstance(error, KafkaError) else RetriableError(f"not sent: {error}")


class UsedRecord(NamedTuple):
    """A record of the topic, and its place there."""

    partition: int
    offset: int
    used: UsedLogits


class UsedLogitsReader:
    """Reads all partitions of `used-logits` from `offsets` on: per partition the next to read.

    Where the topic does not have that record any more, the oldest that it has is next, with a warning: a missing logit
    costs a signal, never a step. DataLossError for an offset beyond its end: it was made anew. Errors of Kafka that
    pass cost a try; UndecodableError for what cannot be decoded, unless an operator lets it be skipped.
    ServiceUnavailableError where the broker has not heard of the topic yet.
    """

    def __init__(self, kafka_servers: str, topics: Topics, offsets: Mapping[int, int]) -> None:
        self._topic = topics.used_logits
        self._consumer: KafkaConsumer = connection.consumer(kafka_servers)
        self._decoder = Decoder(self._consumer, kafka_servers, topics, UsedLogits)
        try:
            with connection.reaching(kafka_servers):
                self.started = self._start(offsets)
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_seconds: float) -> list[UsedRecord]:
        """The next records, each partition's in their order; none when nothing came, or Kafka is away."""
        try:
            batches = self._decoder.poll(timeout_seconds * 1000)
        except OffsetOutOfRangeError as error:
            self._go_on_at_the_oldest(list(error.args[0]))
            return []
        return [UsedRecord(at.partition, one.offset, one.record) for at, found in batches.items() for one in found]

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def _start(self, offsets: Mapping[int, int]) -> dict[int, int]:
        partitions = [TopicPartition(self._topic, p) for p in sorted(self._consumer.partitions_for_topic(self._topic))]
        if not partitions:
            raise unheard_error(self._topic)
        self._consumer.assign(partitions)
        oldest, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        for at in partitions:
            wanted = offsets.get(at.partition, oldest[at])
            if wanted > max(ends[at], 0):
                raise DataLossError(
                    f"topic {at.topic}, partition {at.partition} ends at offset {ends[at]}, but the example log has "
                    f"its logits up to {wanted}: the topic was deleted and made anew"
                )
            self._consumer.seek(at, max(wanted, oldest[at]))
            if wanted < oldest[at]:
                _warn_of_lost(at, wanted, oldest[at])
        return {at.partition: max(offsets.get(at.partition, 0), oldest[at]) for at in partitions}

    def _go_on_at_the_oldest(self, lost: Sequence[TopicPartition]) -> None:
        try:
            oldest = self._consumer.beginning_offsets(lost)
        except RetriableError as error:
            _log.debug("where %s begins now is not known yet: %s", self._topic, error)
            return  # the next poll says again that they are lost
        for at in lost:
            _warn_of_lost(at, self._consumer.position(at), oldest[at])
            self._consumer.seek(at, oldest[at])


def _warn_of_lost(at: TopicPartition, wanted: int, oldest: int) -> None:
    _log.warning(
        "topic %s, partition %d: the logits of offsets %d to %d were deleted before they were archived; the example "
        "log does not know them",
        at.topic,
        at.partition,
        wanted,
        oldest - 1,
        extra={**at._asdict(), "offset": wanted},
    )
