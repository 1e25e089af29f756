"""Reads the topics that graft itself writes, and passes over what an operator lets every reader skip.

A skip is a record in the dead-letter topic of that topic, in the same partition, with the code `skipped`. Its value is
``{"first": 12, "last": 57}``: offsets of the topic. A reader asks for it only where it cannot decode.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from prometheus_client import Counter

from runtime.errors import InvalidInputError
from stream.config import Topics
from stream.events import EventRecord, Example, TeacherRequest
from stream.kafka import connection
from stream.kafka.dead_letter_topics import dead_letters
from stream.kafka.dead_letters import SKIPPED, DeadLetter
from stream.kafka.errors import Record, Undecodable, UndecodableError, decoded
from stream.messages import Message

OFFSETS = Counter("graft_skipped_offsets", "Offsets passed over after 'graft stream skip'", ["topic"])

_log = logging.getLogger(__name__)
_READ_SECONDS = 5.0


class Skip(NamedTuple):
    """The offsets `first` to `last` of one partition of a topic."""

    topic: str
    partition: int
    first: int
    last: int


def skip(kafka_servers: str, topics: Topics, wanted: Skip, *, dry_run: bool) -> Undecodable:
    """Record a skip; what cannot be decoded there.

    InvalidInputError, and nothing is written, when the record at `first` can be decoded, or `last` is not on the
    broker.
    """
    found = _undecodable(kafka_servers, topics, wanted)
    if not dry_run:
        place = Message(wanted.topic, wanted.partition, wanted.first, None, _to_json(wanted))
        text = f"offsets {wanted.first} to {wanted.last} are skipped by 'graft stream skip': {found.fault}"
        key, value, headers = DeadLetter(place, SKIPPED, text, "poll").record()
        producer = connection.producer(kafka_servers)
        try:
            with connection.reaching(kafka_servers):
                sent = producer.send(topics.dead_letters(wanted.topic), value, key, headers, wanted.partition)
                sent.get(timeout=connection.REQUEST_TIMEOUT_MS / 1000)
        finally:
            producer.close(timeout=5)
    return found


def find_skip(kafka_servers: str, topics: Topics, records: Undecodable) -> Skip | None:
    """The recorded skip that the first of these records belongs to, the farthest of several; None: there is none."""
    farthest: Skip | None = None
    with dead_letters(kafka_servers, topics) as reader:
        for letter in reader.of_partition(records.topic, records.partition):
            if letter.code != SKIPPED:
                continue
            first, last = (json.loads(letter.message.value or b"")[name] for name in ("first", "last"))
            if first <= records.first <= last and (farthest is None or farthest.last < last):
                farthest = Skip(records.topic, records.partition, first, last)
    return farthest


def pass_over(consumer: KafkaConsumer, kafka_servers: str, topics: Topics, error: UndecodableError) -> int:
    """Let `consumer` go on after what it cannot decode, where an operator lets it; the last offset that is skipped.

    Else UndecodableError with the command that does so.
    """
    records = error.records
    skip = find_skip(kafka_servers, topics, records)
    if skip is None:
        place = f"{records.topic.removeprefix(topics.prefix)} {records.partition} {records.first} {records.last}"
        advice = f"'graft stream skip {place}' lets its readers go on after it"
        raise UndecodableError(records, advice) from error
    _log.warning("%s; skipped up to offset %d, as was asked for", records, skip.last, extra=error.place)
    OFFSETS.labels(records.topic).inc(skip.last + 1 - records.first)
    at = TopicPartition(records.topic, records.partition)
    consumer.seek(at, max(consumer.position(at), skip.last + 1))
    return skip.last


def _undecodable(kafka_servers: str, topics: Topics, wanted: Skip) -> Undecodable:
    """What cannot be decoded at the skip's first offset."""
    models: dict[str, type[EventRecord]] = {
        topics.examples: Example,
        topics.teacher_requests: TeacherRequest,
    }
    at = TopicPartition(wanted.topic, wanted.partition)
    place = f"{at.topic}-{at.partition}"
    consumer = connection.consumer(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            if wanted.partition not in (consumer.partitions_for_topic(wanted.topic) or ()):
                raise InvalidInputError(f"{place}: there is no such partition")
            consumer.assign([at])
            begin, end = consumer.beginning_offsets([at])[at], consumer.end_offsets([at])[at]
            if not begin <= wanted.first <= wanted.last < end:
                raise InvalidInputError(
                    f"{place}: FIRST and LAST must lie within the offsets {begin} to {end - 1} that are on the broker, "
                    f"FIRST not after LAST, got {wanted.first} and {wanted.last}"
                )
            consumer.seek(at, wanted.first)
            read = consumer.poll(timeout_ms=_READ_SECONDS * 1000, max_records=1).get(at, [])
            for record in read if wanted.topic in models else ():
                decoded(record, models[wanted.topic])
    except UndecodableError as error:
        return error.records
    finally:
        consumer.close(autocommit=False, timeout_ms=2_000)
    outcome = "can be decoded" if read else f"gave nothing within {_READ_SECONDS:.0f} s"
    raise InvalidInputError(
        f"{place}: offset {wanted.first} {outcome}, so nothing is to be skipped; the last line of a process that has "
        "ended names the offsets"
    )


def _to_json(wanted: Skip) -> bytes:
    return json.dumps({"first": wanted.first, "last": wanted.last}).encode()


class Decoded(NamedTuple, Generic[Record]):
    """A record, the offset at which it stands, and what kafka-python gave for it."""

    offset: int
    record: Record
    raw: Any


class Decoder(Generic[Record]):
    """Polls `consumer` and decodes what it gives as records of `model`, or passes over it where an operator says so."""

    def __init__(self, consumer: KafkaConsumer, kafka_servers: str, topics: Topics, model: type[Record]) -> None:
        self._consumer = consumer
        self._kafka_servers, self._topics = kafka_servers, topics
        self._model = model

    def poll(self, timeout_ms: float, max_records: int | None = None) -> dict[TopicPartition, list[Decoded[Record]]]:
        """The next records of each partition; UndecodableError with the command that skips what cannot be decoded."""
        try:
            batches = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
        except UndecodableError as error:
            self._pass_over(error)
            return {}
        return {at: list(self._decoded(records)) for at, records in batches.items()}

    def _decoded(self, records: Iterable[Any]) -> Iterator[Decoded[Record]]:
        skipped = -1
        for record in records:
            if record.offset <= skipped:
                continue
            try:
                yield Decoded(record.offset, decoded(record, self._model), record)
            except UndecodableError as error:
                skipped = self._pass_over(error)

    def _pass_over(self, error: UndecodableError) -> int:
        return pass_over(self._consumer, self._kafka_servers, self._topics, error)
