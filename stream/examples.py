"""The learner's input: every committed example from given offsets on, in one order for all partitions."""

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError, RetriableError
from kafka.structs import OffsetAndMetadata

from graft.errors import DataLossError, GraftError
from stream import connection
from stream.config import Topics
from stream.events import Example
from stream.groups import LEARNER_GROUP, group_id
from stream.merge import Merge

_log = logging.getLogger(__name__)


class ExampleRecord(NamedTuple):
    """An example and where it stands; a reader that starts at `offset` + 1 does not get it again."""

    partition: int
    offset: int
    example: Example


class History(Protocol):
    """One partition's records that the topic need not have any more, in their order, a few at a time."""

    @property
    def left(self) -> int:
        """Offsets not yet given."""
        ...

    def __next__(self) -> list[ExampleRecord]:
        """The next records; StopIteration after the last."""
        ...


def oldest_offsets(bootstrap: str, topics: Topics) -> dict[int, int]:
    """Per partition the offset at which `examples` begins on the broker now."""
    consumer = connection.consumer(bootstrap)
    try:
        with connection.reaching(bootstrap):
            partitions = [TopicPartition(topics.examples, p) for p in consumer.partitions_for_topic(topics.examples)]
            return {at.partition: offset for at, offset in sorted(consumer.beginning_offsets(partitions).items())}
    finally:
        consumer.close(autocommit=False, timeout_ms=2_000)


class ExampleReader:
    """Reads all partitions of `examples` from `offsets` on (per partition the next to read; 0 where absent).

    A partition with a `history` gives that first; it must end right before the partition's offset.

    It is no member of a group: the offsets are the caller's, who keeps them with what it learnt. Partitions are merged
    by event time, which gives one order for one log; while the log still grows, the order of several partitions may
    depend on what has arrived. DataLossError when an offset is not on the broker any more.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        offsets: Mapping[int, int],
        history: Mapping[int, History] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topics.examples
        self._consumer = connection.consumer(bootstrap, group_id=group_id(topics, LEARNER_GROUP))
        try:
            with connection.reaching(bootstrap):
                self._started = self._start(offsets)
        except BaseException:
            self.close()
            raise
        self._partitions = list(self._started)
        self._merge: Merge[TopicPartition, ExampleRecord] = Merge(self._partitions)
        self._history = {TopicPartition(self._topic, p): records for p, records in (history or {}).items()}
        self._consumer.pause(*self._history)
        self._lag = 0

    def poll(self, timeout_seconds: float) -> list[ExampleRecord]:
        """The next examples in their order; none when nothing came within `timeout_seconds`, or Kafka is away."""
        self._recall()
        try:
            batches = self._consumer.poll(timeout_ms=0 if self._history else timeout_seconds * 1000)
        except OffsetOutOfRangeError as error:
            raise self._gone(error.args[0]) from error
        for at, records in batches.items():
            for record in records:
                self._add(at, ExampleRecord(at.partition, record.offset, Example.model_validate_json(record.value)))
        return list(self._merge.take(self._caught_up()))

    def lag(self) -> int:
        """Offsets between what was returned and the end of the topic; the last known number while Kafka is away."""
        try:
            ends = self._consumer.end_offsets(self._partitions)
        except RetriableError:
            return self._lag
        ahead = sum(max(0, end - self._consumer.position(at)) for at, end in ends.items())
        ahead += sum(records.left for records in self._history.values())
        self._lag = ahead + sum(self._merge.buffered(at) for at in self._partitions)
        return self._lag

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Show the outside how far the learner has come: `offsets`, and where it started in the other partitions.

        Nothing is read from it, so a failure is only logged.
        """
        reached = self._started | {TopicPartition(self._topic, p): offset for p, offset in offsets.items()}
        progress = {at: OffsetAndMetadata(offset, "", -1) for at, offset in reached.items()}
        try:
            self._consumer.commit(progress, timeout_ms=2_000)
        except KafkaError as error:
            _log.warning("the learner's progress is not published now: %s", error)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def _add(self, at: TopicPartition, record: ExampleRecord) -> None:
        self._merge.add(at, record.example.event_time_ms, record)

    def _recall(self) -> None:
        """Give the merge more of each history that it has used up; one that ends makes place for the topic."""
        for at, records in list(self._history.items()):
            if self._merge.buffered(at):
                continue
            if not (recalled := next(records, [])):
                del self._history[at]
                self._consumer.resume(at)
            for record in recalled:
                self._add(at, record)

    def _start(self, offsets: Mapping[int, int]) -> dict[TopicPartition, int]:
        numbers = sorted(self._consumer.partitions_for_topic(self._topic))
        partitions = [TopicPartition(self._topic, p) for p in numbers]
        if not partitions or not set(offsets) <= set(numbers):
            raise GraftError(
                f"topic {self._topic} at {self._bootstrap} has partitions {numbers}, but partitions "
                f"{sorted(offsets) or 'of it'} are to be read; 'graft stream run' makes it"
            )
        oldest, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        self._consumer.assign(partitions)
        started = {at: offsets.get(at.partition, 0) for at in partitions}
        for at, offset in started.items():
            if not oldest[at] <= offset <= max(ends[at], 0):
                raise self._gone({at: offset})
            self._consumer.seek(at, offset)
        return started

    def _caught_up(self) -> set[TopicPartition]:
        """The partitions with nothing more on the broker; asked only when some have to wait for others."""
        waiting = [at for at in self._partitions if not self._merge.buffered(at)]
        if not waiting or len(waiting) == len(self._partitions):
            return set()
        try:
            ends = self._consumer.end_offsets(waiting)
        except RetriableError:
            return set()
        return {at for at, end in ends.items() if self._consumer.position(at) >= end}

    def _gone(self, offsets: Mapping[TopicPartition, int]) -> DataLossError:
        places = ", ".join(f"{at.topic}-{at.partition} offset {offset}" for at, offset in offsets.items())
        return DataLossError(
            f"examples that were not learnt yet are not on the broker: {places}; give the topic a longer retention, "
            "and start the student again from an empty versions folder"
        )
