"""What became of a replay's messages: how far the stream has read them, and how many are dead letters."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from runtime.errors import InvalidInputError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.dead_letters import StoredLetter, stored_letter
from stream.kafka.groups import STREAM_GROUP, committed_offsets, end_offsets, group_id
from stream.messages import message_of
from stream.replay.replay import Sent

_POLL_SECONDS = 0.2
_POLL_MS = 200
_PATIENCE_SECONDS = 10.0  # without progress: above a take-over after a kill, 6 s
_LONGEST_SECONDS = 60.0


class Outcome(NamedTuple):
    """What is known of the messages when the waiting ends.

    `unread`: those that the stream has not taken yet. `dead_letters`: reason -> how many of the others. `has_reader`: a
    stream process reads the topics; without one nobody waited.
    """

    has_reader: bool
    unread: int
    dead_letters: dict[str, int]


def await_outcome(
    kafka_servers: str, topics: Topics, sent: Sent, patience_seconds: float = _PATIENCE_SECONDS
) -> Outcome:
    """Wait until the stream has read what was sent, at most a minute, or `patience_seconds` without progress.

    A message that waits in the join, such as feedback whose impression may still come, can become a dead letter later.
    """
    admin = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            has_reader = _has_reader(admin, topics)
            unread = _await(admin, topics, sent.offsets, patience_seconds if has_reader else 0.0)
            ends = end_offsets(admin, {at.topic for at in sent.dead_letter_ends})
            letters = _letters(kafka_servers, sent.dead_letter_ends, ends)
    finally:
        admin.close()
    ours = (letter for letter in letters if _is_of(letter, sent.offsets))
    return Outcome(has_reader, unread, dict(Counter(letter.code for letter in ours).most_common()))


def _has_reader(admin: KafkaAdminClient, topics: Topics) -> bool:
    name = group_id(topics, STREAM_GROUP)
    try:
        return bool(admin.describe_groups([name])[name]["members"])
    except (KafkaError, KeyError):
        return False


def _await(
    admin: KafkaAdminClient, topics: Topics, offsets: Mapping[TopicPartition, range], patience_seconds: float
) -> int:
    """How many messages are left unread when the waiting ends."""
    unread, began = _unread(admin, topics, offsets), time.monotonic()
    moved = began
    while unread and time.monotonic() - moved < patience_seconds and time.monotonic() - began < _LONGEST_SECONDS:
        time.sleep(_POLL_SECONDS)
        left = _unread(admin, topics, offsets)
        moved = time.monotonic() if left < unread else moved
        unread = left
    return unread


def _unread(admin: KafkaAdminClient, topics: Topics, offsets: Mapping[TopicPartition, range]) -> int:
    committed = committed_offsets(admin, group_id(topics, STREAM_GROUP))
    reached = {at: found.offset for at, found in committed.items()}
    return sum(max(0, sent.stop - max(sent.start, reached.get(at, 0))) for at, sent in offsets.items())


def _letters(
    kafka_servers: str, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> list[StoredLetter]:
    """The dead letters between these offsets, as far as the topics still have them."""
    consumer = connection.consumer(kafka_servers)
    try:
        return [
            letter for at, begin in begins.items() for letter in _letters_of(consumer, at, begin, ends.get(at, begin))
        ]
    finally:
        consumer.close(autocommit=False, timeout_ms=2_000)


def _letters_of(consumer: KafkaConsumer, at: TopicPartition, begin: int, end: int) -> Iterator[StoredLetter]:
    consumer.assign([at])
    consumer.seek(at, max(begin, consumer.beginning_offsets([at])[at]))
    end = min(end, consumer.end_offsets([at])[at])  # without a transaction that is still open
    while consumer.position(at) < end:
        for record in consumer.poll(timeout_ms=_POLL_MS).get(at, []):
            message = message_of(record)
            try:
                yield stored_letter(at.topic, at.partition, message.offset, record.timestamp, message)
            except InvalidInputError:
                continue  # a replay's mark; 'graft dlq ls' warns of others


def _is_of(letter: StoredLetter, offsets: Mapping[TopicPartition, range]) -> bool:
    message = letter.message
    return message.offset in offsets.get(TopicPartition(message.topic, message.partition), ())
