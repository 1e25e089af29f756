"""Reads the topics that graft itself writes, for the processes after the stream."""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from stream.config import Topics
from stream.kafka.skips import pass_over
from stream.kafka.undecodable import Record, UndecodableError, decoded


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
