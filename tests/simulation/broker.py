"""A simulated Kafka broker: topics, transactional producers and groups, on one timeline."""

from collections.abc import Mapping
from random import Random

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, ProducerFencedError

from tests.simulation.group import Group
from tests.simulation.log import PartitionLog, Transaction
from tests.simulation.timeline import Timeline

START_MS = 1_700_000_000_000
"""The wall clock where the simulated time is 0."""
TRANSACTION_MS = 10_000.0
_MARKER_MS = 30.0  # a broker writes a transaction's markers after it was decided, topic by topic

Headers = tuple[tuple[str, bytes | None], ...]


class ProducerId:
    """The one producer that may write under a transactional id; it is fenced by the next one of that id."""

    def __init__(self) -> None:
        self.is_fenced = False
        self.transaction = Transaction("aborted", has_moved_offsets=True)


class Broker:
    """Everything that survives a process. `is_full` refuses what is written, as a full disk does."""

    def __init__(self, timeline: Timeline, random: Random, partitions: int) -> None:
        self.partitions = partitions
        self.is_full = False
        self.topics: dict[str, Mapping[str, str]] = {}
        self.logs: dict[TopicPartition, PartitionLog] = {}
        self.groups: dict[str, Group] = {}
        self.committed: list[Transaction] = []
        self._timeline, self._random = timeline, random
        self._producers: dict[str, ProducerId] = {}

    @property
    def wall_ms(self) -> int:
        """The broker's wall clock."""
        return START_MS + int(self._timeline.now_ms)

    def make_topic(self, name: str, settings: Mapping[str, str]) -> None:
        """Make a topic that is missing."""
        self.topics[name] = settings
        for number in range(self.partitions):
            at = TopicPartition(name, number)
            self.logs[at] = PartitionLog(at)

    def group(self, name: str) -> Group:
        """The group of this name."""
        return self.groups.setdefault(name, Group(name, self.partitions))

    def append(
        self,
        at: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        transaction: Transaction | None = None,
    ) -> int:
        """Write one record; its offset."""
        size = len(key or b"") + len(value or b"") + sum(len(n) + len(v or b"") for n, v in headers)
        if transaction and size > int(self.topics[at.topic]["max.message.bytes"]):
            raise MessageSizeTooLargeError(f"{at.topic}: {size} bytes")
        return self.logs[at].append(key, value, headers, self.wall_ms, self._timeline.now_ms, transaction)

    def producer(self, transactional_id: str) -> ProducerId:
        """A new producer of this id: the earlier one is fenced, and its open transaction aborted."""
        earlier = self._producers.get(transactional_id)
        if earlier:
            self._fence(earlier)
        made = self._producers[transactional_id] = ProducerId()
        if earlier:
            made.transaction = earlier.transaction  # nothing begins before its markers are written
        return made

    def begin(self, producer: ProducerId) -> None:
        """Open a transaction, which is aborted when it stays open for too long."""
        self.check(producer)
        transaction = producer.transaction = Transaction()

        def expire() -> None:
            if transaction.state == "open":
                self._fence(producer)

        self._timeline.at(self._timeline.now_ms + TRANSACTION_MS, expire)

    def commit(self, producer: ProducerId) -> None:
        """Decide the open transaction; its markers and offsets follow."""
        self.check(producer)
        assert producer.transaction.state == "open"
        producer.transaction.state = "committed"
        self.committed.append(producer.transaction)
        self._mark(producer.transaction)

    def abort(self, transaction: Transaction) -> None:
        """Decide an open transaction against it."""
        transaction.state = "aborted"
        self._mark(transaction)

    def check(self, producer: ProducerId) -> None:
        """Refuse a producer that was fenced, and every one while the disk is full."""
        if producer.is_fenced:
            raise ProducerFencedError
        if self.is_full:
            raise KafkaTimeoutError("the broker's disk is full")

    def _fence(self, producer: ProducerId) -> None:
        producer.is_fenced = True
        if producer.transaction.state == "open":
            self.abort(producer.transaction)

    def _mark(self, transaction: Transaction) -> None:
        for at in transaction.partitions:
            self._timeline.at(self._soon(), lambda at=at: self._mark_one(transaction, at))
        self._timeline.at(self._soon(), lambda: self._move_offsets(transaction))

    def _soon(self) -> float:
        return self._timeline.now_ms + self._random.random() * _MARKER_MS

    def _mark_one(self, transaction: Transaction, at: TopicPartition) -> None:
        self.logs[at].mark(transaction, self.wall_ms, self._timeline.now_ms)

    def _move_offsets(self, transaction: Transaction) -> None:
        transaction.has_moved_offsets = True
        if transaction.state == "committed":
            for name, offsets in transaction.offsets.items():
                self.group(name).offsets.update(offsets)
