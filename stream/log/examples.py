"""The learner's input: every committed example from given offsets on, in one order, also where processes share it."""

import json
import logging
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError, RetriableError
from kafka.structs import OffsetAndMetadata

from runtime.errors import DataLossError, GraftError
from runtime.outage import Outage
from stream.config import Topics
from stream.events import Example
from stream.kafka import connection
from stream.kafka.decoding import Decoder
from stream.kafka.groups import LEARNER_GROUP, group_id
from stream.positions import ArchivedLogits, Merge, Positions


class Ranks(Protocol):
    """One of the processes, its *rank*, and how it reaches the others."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    @property
    def ranks(self) -> int:
        """How many there are."""
        ...

    def gather(self, messages: Sequence[bytes]) -> list[list[bytes]]:
        """The messages of every rank, in the order of ranks; all ranks call it together and get the same."""
        ...


class OneRank:
    """A process that reads everything itself."""

    rank = 0
    ranks = 1

    def gather(self, messages: Sequence[bytes]) -> list[list[bytes]]:
        """Its own messages."""
        return [list(messages)]


ONE_RANK = OneRank()


_log = logging.getLogger(__name__)


LEARNER_ADVICE = (
    "if an example log has them, 'graft student train --from LOG' goes on; else set GRAFT_VERSIONS to a new folder, "
    "and a new student begins with the oldest example that is left"
)
"""What to do when a learner's own position is gone."""


class ExampleRecord(NamedTuple):
    """An example and its place in the topic; a reader that starts at `offset` + 1 does not get it again.

    `archived`: what an example log has of its teacher; the topic has nothing of it.
    """

    partition: int
    offset: int
    example: Example
    archived: ArchivedLogits | None = None


class History(Protocol):
    """One partition's records that the topic need not have any more, in their order, a few at a time."""

    @property
    def left(self) -> int:
        """Offsets not yet given."""
        ...

    def __next__(self) -> list[ExampleRecord]:
        """The next records; StopIteration after the last."""
        ...


class ExampleReader:
    """Reads all partitions of `examples` from `offsets` on: per partition the next to read.

    A partition without an offset begins with the oldest example that the broker has; a warning says what was deleted
    before it. A partition with a `history` gives that first; it must end right before the partition's offset.

    It is no member of a group: the offsets are the caller's, who keeps them with what it learnt. Partitions are merged
    by event time, which gives one order for one log; while the log still grows, the order of several partitions may
    depend on what has arrived. DataLossError, which ends with the advice `if_gone`, when an offset is not on the broker
    any more; OffsetError when a partition's offsets do not rise; UndecodableError for what cannot be decoded, unless an
    operator lets it be skipped.

    With several `ranks` each fetches and decodes the partitions whose number modulo `ranks` is its own, then all merge
    the records of all: every rank gets every example, in the order of one process. They poll together.
    """

    def __init__(
        self,
        kafka_servers: str,
        topics: Topics,
        offsets: Mapping[int, int],
        history: Mapping[int, History] | None = None,
        ranks: Ranks = ONE_RANK,
        if_gone: str = LEARNER_ADVICE,
    ) -> None:
        self._kafka_servers = kafka_servers
        self._ranks = ranks
        self._if_gone = if_gone
        self._topic = topics.examples
        self._kafka = Outage("kafka", "waiting for it, no example is lost")
        self._consumer = connection.consumer(kafka_servers, group_id=group_id(topics, LEARNER_GROUP))
        self._decoder = Decoder(self._consumer, kafka_servers, topics, Example)
        try:
            with connection.reaching(kafka_servers):
                self._started = self._start(offsets)
        except BaseException:
            self.close()
            raise
        self._partitions = [at.partition for at in self._started]
        self._merge: Merge[int, ExampleRecord] = Merge(self._partitions)
        places = {TopicPartition(self._topic, p): records for p, records in (history or {}).items()}
        self._history = {at: records for at, records in places.items() if self._is_own(at)}
        begun = {
            at.partition: offset - (places[at].left if at in places else 0) for at, offset in self._started.items()
        }
        self._taken = Positions(lambda partition: f"topic {self._topic}, partition {partition}", begun)
        self._consumer.pause(*self._history)
        self._next = {at: offset for at, offset in self._started.items() if not self._is_own(at)}
        self._busy = False
        self._lag = 0

    @property
    def started(self) -> dict[int, int]:
        """Per partition the offset of the first record that is read of the topic."""
        return {at.partition: offset for at, offset in self._started.items()}

    def poll(self, timeout_seconds: float) -> list[ExampleRecord]:
        """The next examples in their order; none when nothing came within `timeout_seconds`, or Kafka is away."""
        for record in self._gathered(self._read(timeout_seconds)):
            self._taken.take(record.partition, record.offset)
            self._merge.add(record.partition, record.example.event_time_ms, record)
        return list(self._merge.take(self._caught_up()))

    def lag(self) -> int:
        """Offsets between what was returned and the end of the topic; the last known number while Kafka is away.

        DataLossError where the topic ends before what was read: what comes before that would be left out.
        """
        try:
            ends = self._consumer.end_offsets(list(self._started))
        except RetriableError as error:
            self._kafka.failed(error)  # no wait here: poll waits for records anyway
            return self._lag
        self._kafka.ended()
        positions = {at: self._position(at) for at in ends}
        for at, end in ends.items():
            if positions[at] > end:
                raise self._gone({at: positions[at]}, f"; the topic ends at {end}: it was made anew")
        ahead = sum(end - positions[at] for at, end in ends.items())
        ahead += sum(records.left for records in self._history.values())
        self._lag = ahead + sum(map(self._merge.buffered, self._partitions))
        return self._lag

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Publish `offsets` as the learner's group offsets, and where it started in the other partitions.

        They serve monitoring alone: the learner never reads them back, so a failure is only logged.
        """
        reached = self._started | {TopicPartition(self._topic, p): offset for p, offset in offsets.items()}
        progress = {at: OffsetAndMetadata(offset, "", -1) for at, offset in reached.items()}
        try:
            self._consumer.commit(progress, timeout_ms=2_000)
        except KafkaError as error:
            _log.warning("the learner's progress is not published now: %s", error)

    def close(self) -> None:
        """Let go of the connections."""
        self._kafka.forget()
        self._consumer.close(autocommit=False, timeout_ms=2_000)

    def _read(self, timeout_seconds: float) -> list[ExampleRecord]:
        """What comes next in this rank's partitions."""
        own = list(self._recalled())
        if not self._consumer.assignment():
            return own
        try:
            batches = self._decoder.poll(0 if self._history or self._busy else timeout_seconds * 1000)
        except OffsetOutOfRangeError as error:
            raise self._gone(error.args[0]) from error
        for at, examples in batches.items():
            own += [ExampleRecord(at.partition, found.offset, found.record) for found in examples]
        return own

    def _recalled(self) -> Iterator[ExampleRecord]:
        """More of each history that the merge has used up; one that ends makes place for the topic."""
        for at, records in list(self._history.items()):
            if self._merge.buffered(at.partition):
                continue
            if not (recalled := next(records, [])):
                del self._history[at]
                self._consumer.resume(at)
            yield from recalled

    def _gathered(self, own: list[ExampleRecord]) -> Iterable[ExampleRecord]:
        """The records of all ranks; those of one partition in their order."""
        if self._ranks.ranks == 1:
            return own
        gathered = self._ranks.gather([_packed(record) for record in own])
        others = [_unpacked(m) for rank, messages in enumerate(gathered) if rank != self._ranks.rank for m in messages]
        self._next |= {TopicPartition(self._topic, r.partition): r.offset + 1 for r in others}
        self._busy = any(gathered)  # the others must not wait for a partition of this rank that has nothing more
        return [*own, *others]

    def _is_own(self, at: TopicPartition) -> bool:
        return bool(at.partition % self._ranks.ranks == self._ranks.rank)

    def _position(self, at: TopicPartition) -> int:
        """The offset up to which the merge has the records of a partition."""
        return int(self._consumer.position(at) if self._is_own(at) else self._next[at])

    def _start(self, offsets: Mapping[int, int]) -> dict[TopicPartition, int]:
        numbers = sorted(self._consumer.partitions_for_topic(self._topic))
        partitions = [TopicPartition(self._topic, p) for p in numbers]
        if not partitions or not set(offsets) <= set(numbers):
            raise GraftError(
                f"topic {self._topic} at {self._kafka_servers} has partitions {numbers}, but partitions "
                f"{sorted(offsets) or 'of it'} are to be read; 'graft stream run' makes it"
            )
        oldest, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        self._consumer.assign([at for at in partitions if self._is_own(at)])
        for at in partitions:
            if at.partition in offsets and not oldest[at] <= offsets[at.partition] <= max(ends[at], 0):
                raise self._gone({at: offsets[at.partition]}, f"; the broker has {oldest[at]} to {ends[at]} there")
        self._warn_of_missed({at: oldest[at] for at in self._consumer.assignment() if at.partition not in offsets})
        started = self._agreed({at: offsets.get(at.partition, oldest[at]) for at in partitions})
        for at in self._consumer.assignment():
            self._consumer.seek(at, started[at])
        return started

    def _agreed(self, started: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Where each partition starts by the rank whose own it is: two ranks may have asked the broker at two times."""
        own = [b"%d %d" % (at.partition, offset) for at, offset in started.items() if self._is_own(at)]
        told = (tuple(map(int, message.split())) for rank in self._ranks.gather(own) for message in rank)
        found = {TopicPartition(self._topic, partition): offset for partition, offset in told}
        return {at: found[at] for at in started}

    def _warn_of_missed(self, begun: Mapping[TopicPartition, int]) -> None:
        for at, offset in sorted(begun.items()):
            if offset:
                _log.warning(
                    "topic %s, partition %d begins with offset %d now: the examples before it were deleted, "
                    "and are missed; an example log may have them",
                    at.topic,
                    at.partition,
                    offset,
                    extra={**at._asdict(), "offset": offset},
                )

    def _caught_up(self) -> set[int]:
        """The partitions with nothing more on the broker; asked only when some have to wait for others."""
        waiting = [p for p in self._partitions if not self._merge.buffered(p)]
        if not waiting or len(waiting) == len(self._partitions):
            return set()
        own = self._at_end([at for at in self._consumer.assignment() if at.partition in waiting])
        return {int(partition) for found in self._ranks.gather([b"%d" % p for p in own]) for partition in found}

    def _at_end(self, own: Collection[TopicPartition]) -> list[int]:
        try:
            ends = self._consumer.end_offsets(own) if own else {}
        except RetriableError:
            return []
        return [at.partition for at, end in ends.items() if self._consumer.position(at) >= end]

    def _gone(self, offsets: Mapping[TopicPartition, int], there: str = "") -> DataLossError:
        places = ", ".join(f"{at.topic}-{at.partition} offset {offset}" for at, offset in offsets.items())
        return DataLossError(f"the next examples are not on the broker: {places}{there}; {self._if_gone}")


_PLACE = struct.Struct("<iq")


def _packed(record: ExampleRecord) -> bytes:
    place = _PLACE.pack(record.partition, record.offset)
    return place + json.dumps(record.archived).encode() + b"\n" + record.example.model_dump_json().encode()


def _unpacked(message: bytes) -> ExampleRecord:
    partition, offset = _PLACE.unpack_from(message)
    archived, example = message[_PLACE.size :].split(b"\n", 1)
    its_logits = json.loads(archived)
    return ExampleRecord(
        partition, offset, Example.model_validate_json(example), its_logits and ArchivedLogits(*its_logits)
    )
