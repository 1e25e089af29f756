"""The newest teacher requests of a scorer that lags, before their turn: what the learner is about to need."""

from collections.abc import Collection

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from stream.events import TeacherRequest
from stream.kafka import connection
from stream.kafka.undecodable import UndecodableError, decoded

_POLL_MS = 200


class NewestRequests:
    """Reads at the ends of partitions and commits nothing, so that all it reads comes again in its turn."""

    def __init__(self, kafka_servers: str) -> None:
        self._kafka_servers = kafka_servers
        self._consumer: KafkaConsumer | None = None  # there is none before the first lag

    def poll(self, partitions: Collection[TopicPartition], max_records: int) -> list[TeacherRequest]:
        """At most `max_records` of the newest requests, none of them twice as long as the partitions are the same.

        What cannot be decoded is passed over here. ServiceUnavailableError while Kafka is away.
        """
        if not partitions:
            return []
        with connection.reaching(self._kafka_servers):
            consumer = self._at_the_ends(partitions, max_records // len(partitions) or 1)
            try:
                polled = consumer.poll(timeout_ms=_POLL_MS, max_records=max_records)
            except (OffsetOutOfRangeError, UndecodableError):
                consumer.seek_to_end()
                return []
        found = []
        for record in (record for records in polled.values() for record in records):
            try:
                found.append(decoded(record, TeacherRequest))
            except UndecodableError:  # the reader of all requests says so
                continue
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()

    def _at_the_ends(self, partitions: Collection[TopicPartition], records: int) -> KafkaConsumer:
        """The consumer, at most so many records before the end of each partition."""
        if self._consumer is None:
            self._consumer = connection.consumer(self._kafka_servers)
        known = self._consumer.assignment()
        if known != set(partitions):
            self._consumer.assign(list(partitions))
        for at, end in self._consumer.end_offsets(list(partitions)).items():
            if at not in known or self._consumer.position(at) < end - records:
                self._consumer.seek(at, max(0, end - records))
        return self._consumer
