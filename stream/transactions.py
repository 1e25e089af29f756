"""What one batch writes, as one transaction: all of it and the input offsets, or nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from stream import connection


class Outgoing(NamedTuple):
    """A record to be written."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012 - never changed; kafka-python wants a list


class Transactions:
    """The transactional producer of one instance: it ends and fences the transactions of the processes before it."""

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self._producer = connection.producer(bootstrap, transactional_id)
        try:
            with connection.reaching(bootstrap):
                self._producer.init_transactions()
        except BaseException:
            self._producer.close(timeout=0)
            raise

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
