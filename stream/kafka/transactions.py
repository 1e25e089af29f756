"""What one batch writes, as one transaction: all of it and the input offsets, or nothing."""

import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import NoError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from stream.config import Topics
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, committed_offsets, group_id


class Outgoing(NamedTuple):
    """A record to be written."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - never changed; kafka-python wants a list


class Transactions:
    """The transactional producer of one start of one instance; its predecessor is fenced, its open transaction ended.

    Each start has a transactional id, and so a producer id, of its own, and the last one's is kept as the metadata of
    a group offset. Taking over the predecessor's id would do on Apache Kafka, but the embedded broker tells a reader
    of aborted transactions that lie before its position, which makes it skip all that a producer id writes after one.
    """

    def __init__(self, kafka_servers: str, admin: KafkaAdminClient, topics: Topics, instance: str) -> None:
        group, place = group_id(topics, f"{STREAM_GROUP}-writer-{instance}"), TopicPartition(topics.join_state, 0)
        own = f"{group}-{uuid.uuid4().hex}"
        with connection.reaching(kafka_servers):
            if predecessor := _registered(admin, group, place):
                _initialized(kafka_servers, predecessor).close(timeout=0)
            (outcome,) = admin.alter_group_offsets(group, {place: OffsetAndMetadata(0, own, -1)}).values()
            if outcome is not NoError:
                raise outcome(f"cannot register the writer of instance {instance}")
            self._producer = _initialized(kafka_servers, own)

    def commit(
        self,
        records: Sequence[Outgoing],
        positions: Mapping[TopicPartition, int],
        identity: ConsumerGroupMetadata,
    ) -> list[int]:
        """Write records and input positions in one transaction; the offsets that the records got.

        Whatever is raised, the caller must give this object up and start again from what is on the broker: the outcome
        may be unknown. All records are on the broker before the group is asked, so that once it has let the partitions
        go, nothing can be added to what their next owner waits for.
        """
        self._producer.begin_transaction()
        sent = [self._producer.send(r.topic, r.value, r.key, r.headers, r.partition) for r in records]
        self._producer.flush()
        offsets = [future.get(timeout=0).offset for future in sent]
        committed = {at: OffsetAndMetadata(offset, "", -1) for at, offset in positions.items()}
        self._producer.send_offsets_to_transaction(committed, identity)
        self._producer.commit_transaction()
        return offsets

    def close(self) -> None:
        """Stop at once; an open transaction is ended by the next process, or by the broker's time-out."""
        self._producer.close(timeout=0)


def _registered(admin: KafkaAdminClient, group: str, place: TopicPartition) -> str | None:
    found = committed_offsets(admin, group).get(place)
    return found.metadata if found else None


def _initialized(kafka_servers: str, transactional_id: str) -> KafkaProducer:
    """A producer of this id; every earlier one is fenced and its open transaction aborted."""
    producer = connection.producer(kafka_servers, transactional_id)
    try:
        producer.init_transactions()
    except BaseException:
        producer.close(timeout=0)
        raise
    return producer
