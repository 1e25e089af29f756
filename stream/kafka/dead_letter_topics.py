"""The dead-letter topics of a project: read, and put back what can be used now.

A replayed dead letter is marked in its own topic by a record with the header `graft.replayed`, whose value is the
letter's offset in the same partition. Message and mark are one transaction, so that no letter is put back twice, also
when a replay is killed or two run at once: the later one fences the earlier one before it reads the marks.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from runtime.compute import batched
from runtime.errors import GraftError, InvalidInputError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.dead_letters import ATTEMPT, SKIPPED, StoredLetter, stored_letter
from stream.kafka.groups import group_id
from stream.kafka.topics import partitions_of, whole_partition
from stream.messages import message_of

MAX_ATTEMPTS = 3
"""A message that was a dead letter so often is not put back again: only a change of the message itself can help it."""

_REPLAYED = "graft.replayed"
_BATCH = 500  # messages of one transaction
_log = logging.getLogger(__name__)


class Selection(NamedTuple):
    """Which dead letters are meant. None: any; times are those at which they were written, since 1970."""

    topic: str | None = None
    code: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def has(self, letter: StoredLetter) -> bool:
        """Whether `letter` is one of them."""
        return (
            self.topic in {None, letter.message.topic}
            and self.code in {None, letter.code}
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
        )


class PutBack(NamedTuple):
    """What a replay did: messages put back, and those left because their value was cut or they failed too often.

    `left_skipped` counts the records that stand for messages which could not be decoded.
    """

    replayed: int = 0
    left_cut: int = 0
    left_failed: int = 0
    left_skipped: int = 0


class DeadLetterReader(NamedTuple):
    """Reads the dead letters of a project that were not put back, for as long as `dead_letters` is open.

    A record that is no dead letter of ours is passed over, with a warning.
    """

    consumer: KafkaConsumer
    admin: KafkaAdminClient
    topics: Topics

    def selected(self, selection: Selection) -> Iterator[StoredLetter]:
        """The selected letters that are there now, by topic, partition and offset."""
        for topic in self.topics.with_dead_letters:
            for at in sorted(partitions_of(self.admin, [self.topics.dead_letters(topic)])):
                yield from (letter for letter in self._unmarked(at) if selection.has(letter))

    def of_partition(self, topic: str, partition: int) -> Iterator[StoredLetter]:
        """The letters of one partition of `topic`, by offset."""
        return self._unmarked(TopicPartition(self.topics.dead_letters(topic), partition))

    def _unmarked(self, at: TopicPartition) -> Iterator[StoredLetter]:
        """The letters that no mark names; the marks are read first, since they follow what they name."""
        marks = {int(value) for r in self._records(at) for name, value in r.headers if name == _REPLAYED and value}
        for record in self._records(at):
            message = message_of(record)
            if message.offset in marks or any(name == _REPLAYED for name, _ in message.headers):
                continue
            try:
                yield stored_letter(at.topic, at.partition, message.offset, record.timestamp, message)
            except InvalidInputError as error:
                _log.warning("%s", error, extra={**at._asdict(), "offset": message.offset})

    def _records(self, at: TopicPartition) -> Iterator[Any]:
        """All committed records, those of transactions that are open now among them: they may hold marks."""
        return whole_partition(self.consumer, self.admin, at).records


@contextmanager
def dead_letters(kafka_servers: str, topics: Topics) -> Iterator[DeadLetterReader]:
    """A reader whose clients are closed at the block's end, however much of its letters was taken.

    ServiceUnavailableError when Kafka does not answer, or has no such topics.
    """
    with (
        connection.reaching(kafka_servers),
        closing(connection.admin(kafka_servers)) as admin,
        closing(connection.consumer(kafka_servers)) as consumer,
    ):
        yield DeadLetterReader(consumer, admin, topics)


def replay_dead_letters(
    kafka_servers: str, topics: Topics, selection: Selection, *, dry_run: bool, advance: Callable[[int], None]
) -> PutBack:
    """Put the original bytes of the selected dead letters back into their topics and partitions, each once.

    With `dry_run` nothing is written, and the counts are those of what would be. `advance` gets the messages put back.
    """
    if dry_run:
        with dead_letters(kafka_servers, topics) as reader:
            return _counted(list(reader.selected(selection)))
    producer = connection.producer(kafka_servers, group_id(topics, "graft-dlq-replay"))
    total = PutBack()
    try:
        with dead_letters(kafka_servers, topics) as reader:
            producer.init_transactions()
            for batch in batched(reader.selected(selection), _BATCH):
                count = _counted(batch)
                _put_back(producer, topics, [letter for letter in batch if _can_go_back(letter)])
                total = PutBack(*(a + b for a, b in zip(total, count, strict=True)))
                advance(total.replayed)
    except KafkaError as error:
        if not connection.is_fenced(error):
            raise
        raise GraftError(
            f"another 'graft dlq replay' of this project has begun; this one ends, with {total.replayed} messages put "
            "back; wait for the other one, then look at 'graft dlq ls'"
        ) from error
    finally:
        producer.close(timeout=5)
    return total


def _put_back(producer: KafkaProducer, topics: Topics, letters: Sequence[StoredLetter]) -> None:
    if not letters:
        return
    producer.begin_transaction()
    for letter in letters:
        message, marker = letter.message, [(_REPLAYED, str(letter.offset).encode())]
        headers = [*((n, v or b"") for n, v in message.headers), (ATTEMPT, str(letter.attempt).encode())]
        producer.send(message.topic, message.value, message.key, headers, message.partition)
        producer.send(topics.dead_letters(message.topic), b"", None, marker, letter.partition)
    producer.commit_transaction()


def _can_go_back(letter: StoredLetter) -> bool:
    return _counted([letter]).replayed == 1


def _counted(letters: Sequence[StoredLetter]) -> PutBack:
    skipped = sum(letter.code == SKIPPED for letter in letters)
    messages = [letter for letter in letters if letter.code != SKIPPED]
    cut = sum(letter.is_cut for letter in messages)
    failed = sum(not letter.is_cut and letter.attempt >= MAX_ATTEMPTS for letter in messages)
    return PutBack(len(messages) - cut - failed, cut, failed, skipped)
