"""What graft changes in kafka-python 3.0.12, and the only place where its private names are used.

The version is pinned (`~=3.0.12`). tests/stream/test_patches.py fails where one of these names changes its signature;
the tests that a patch names fail without it. Importing this module applies the patches.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch

from runtime.errors import GraftError
from stream.kafka.errors import BrokerRefusedError, Undecodable, UndecodableError, refusal_of

__all__ = ["Consumer", "KafkaNetClient", "Producer"]

_REBALANCE_MS = 1_000  # a broker answers a member within milliseconds once all members have asked
_LONGEST_ANSWER_MS = 15_000  # above the transaction's time-out: the broker has aborted the transaction by then


class Consumer(KafkaConsumer):  # type: ignore[misc] # kafka-python is untyped
    """A consumer that finishes each rebalance, raises a broker's refusal, and names what is gone.

    A rebalance that only new metadata has asked for is forgotten when a poll ends between the leader's assignment and
    the broker's answer: no later poll looks for the answer, and the member waits for its partitions for ever. An answer
    that comes between two polls is forgotten too. As dpkp/kafka-python#1691;
    test_a_member_with_short_polls_gets_the_partitions_that_are_added_after_it_joined.
    """

    def poll(self, timeout_ms: float = 0, **settings: Any) -> Any:
        """As KafkaConsumer's; within a rebalance it takes `_REBALANCE_MS` at most, however short it is to be.

        GraftError where a broker refuses this client. OffsetOutOfRangeError also where the topic was made anew and has
        not so many records.
        """
        for error in list(_refusals(self._manager).values()):
            raise GraftError(str(error)) from error
        if self._coordinator.rejoining:
            self._coordinator.request_rejoin()
            timeout_ms = max(timeout_ms, _REBALANCE_MS)
        try:
            return super().poll(timeout_ms, **settings)
        except LogTruncationError as error:
            places = {at: self._subscription.assignment[at].position for at in error.divergent_offsets}
            raise OffsetOutOfRangeError({at: place.offset for at, place in places.items() if place}) from error

    def position(self, partition: Any, timeout_ms: float | None = None) -> Any:
        """As KafkaConsumer's, also where the topic was made anew: the next poll says so."""
        with suppress(LogTruncationError):
            return super().position(partition, timeout_ms)
        return self._subscription.assignment[partition].position.offset

    def beginning_offsets(self, partitions: Any, timeout_ms: float | None = None) -> Any:
        """As KafkaConsumer's; UnknownTopicOrPartitionError, not its KeyError, where a topic has been removed."""
        return self._of_known(super().beginning_offsets, partitions, timeout_ms)

    def end_offsets(self, partitions: Any, timeout_ms: float | None = None) -> Any:
        """As `beginning_offsets`."""
        return self._of_known(super().end_offsets, partitions, timeout_ms)

    @property
    def sends_heartbeats(self) -> bool:
        """Whether the broker has taken this member's last heartbeat.

        kafka-python tells nobody that one was refused: it stops sending them, and polls on (dpkp/kafka-python#1547;
        test_on_apache_kafka_two_of_one_name_end_one_of_them_and_two_names_share_the_work).
        """
        return bool(self._coordinator._heartbeat_enabled)  # noqa: SLF001

    @staticmethod
    def _of_known(offsets_of: Callable[..., Any], partitions: Any, timeout_ms: float | None) -> Any:
        try:
            return offsets_of(partitions, timeout_ms)
        except KeyError as error:
            raise UnknownTopicOrPartitionError(f"{error.args[0]} is not there any more") from error


class Producer(KafkaProducer):  # type: ignore[misc] # kafka-python is untyped
    """A producer whose transaction ends: kafka-python waits without a limit for the answer to its last two requests.

    After a broker's restart an answer may never come, while the broker has long aborted the transaction. As KAFKA-7763
    (apache/kafka#6066) of the Java client; test_a_transaction_that_a_broker_does_not_answer_ends_with_an_error.
    """

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """As KafkaProducer's; KafkaTimeoutError where no answer comes for longer than the transaction may take."""
        self._answered(self._transaction_manager.send_offsets_to_transaction(offsets, group_metadata))

    def commit_transaction(self) -> None:
        """As KafkaProducer's, with the same limit; whether it was committed is then not known."""
        self._answered(self._transaction_manager.begin_commit())

    def _answered(self, result: Any) -> None:
        self._sender.wakeup()
        if not result.wait(_LONGEST_ANSWER_MS):
            raise KafkaTimeoutError(f"Kafka gave no answer to a transaction within {_LONGEST_ANSWER_MS / 1000:g} s")


class _LenientBytes(bytes):
    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")


class _LenientBuffer(bytearray):
    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _LenientBytes(part) if isinstance(place, slice) else part


def _read_odd_header_names() -> None:
    r"""Read header names that are not UTF-8 with their odd bytes as ``\xff``.

    Kafka's protocol says that they are UTF-8, and no broker checks it. kafka-python raises UnicodeDecodeError from
    `poll` at such a record and never gets past it; test_a_header_name_that_is_not_utf_8_stops_nothing.
    """
    strict = DefaultRecordBatch._read_msg  # noqa: SLF001

    @wraps(strict)
    def read(batch: Any, *arguments: Any) -> Any:
        try:
            return strict(batch, *arguments)
        except UnicodeDecodeError:
            buffer = batch._buffer  # noqa: SLF001
            batch._buffer = _LenientBuffer(buffer)  # noqa: SLF001
            try:
                return strict(batch, *arguments)
            finally:
                batch._buffer = buffer  # noqa: SLF001

    DefaultRecordBatch._read_msg = read  # noqa: SLF001


def _note_refusals() -> None:
    """Let every client know the brokers that refuse it.

    kafka-python tries such a broker again for ever, and says why in its log alone: a bootstrap ends with a time-out, a
    poll gives nothing. It gives up at once only for a broker that is too old, so a refusal comes as such an error. As
    dpkp/kafka-python#2994; tests/stream/test_secured_kafka.py.
    """
    connect = KafkaConnectionManager._connect  # noqa: SLF001 - the one place that knows broker and connection

    @wraps(connect)
    async def noted(manager: Any, node: Any, connection: Any, *arguments: Any, **settings: Any) -> None:
        lost, refused = connection.connection_lost, _refusals(manager)

        def connection_lost(error: BaseException | None) -> None:
            if why := refusal_of(error, node, connection):
                refused[node.node_id] = error = BrokerRefusedError(f"Kafka at {node.host}:{node.port}: {why}")
            lost(error)

        connection.connection_lost = connection_lost
        await connect(manager, node, connection, *arguments, **settings)
        if connection.connected:
            refused.pop(node.node_id, None)

    KafkaConnectionManager._connect = noted  # noqa: SLF001
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        transport._sock_recv = _read_to_the_end(transport._sock_recv)  # noqa: SLF001


def _read_to_the_end(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    """What came before the end of a connection is read, such as a broker's last words to who may not log in.

    kafka-python drops it where the end comes with it. The next call finds the end again.
    """

    @wraps(receive)
    def received(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return (data, None) if data else (data, error)

    return received


def _refusals(manager: Any) -> dict[Any, BrokerRefusedError]:
    """Of one client: its brokers that refuse it."""
    refused: dict[Any, BrokerRefusedError] = vars(manager).setdefault("graft_refusals", {})
    return refused


def _name_undecodable_records() -> None:
    """Let every consumer say which records it cannot decode, as UndecodableError.

    kafka-python raises whatever its decoder met, without the place. Its next poll takes from the ended decoder for ever
    (`Fetcher.fetched_records`), or tries the same bytes again. As KAFKA-5211 (apache/kafka#3114) of the Java client;
    tests/stream/test_undecodable.py.
    """
    parts = Fetcher.PartitionRecords
    parts._unpack_records = _named(parts._unpack_records)  # noqa: SLF001 - the one place that knows batch and offset
    Fetcher._parse_fetched_data = _parsed(Fetcher._parse_fetched_data)  # noqa: SLF001


def _named(unpack: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @wraps(unpack)
    def named(part: Any, at: Any, records: Any, *more: Any) -> Iterator[Any]:
        batches = _Batches(records)
        return _Records(part, at, batches, unpack(part, at, batches, *more))

    return named


def _parsed(parse: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(parse)
    def parsed(fetcher: Any, fetch: Any) -> Any:
        try:
            return parse(fetcher, fetch)
        except KafkaError as error:
            if type(error) is not KafkaError:  # the others say what the broker answered
                raise
            at = fetch.topic_partition  # a batch whose length is wrong
            raise UndecodableError(
                Undecodable(at.topic, at.partition, fetch.fetched_offset, fetch.fetched_offset, str(error))
            ) from error

    return parsed


class _Batches:
    """The batches of one fetch; `last` is the one that was given last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.last: Any = None

    def next_batch(self) -> Any:
        self.last = None
        self.last = self._records.next_batch()
        return self.last


class _Records(Iterator[Any]):
    """The records of one fetch of a partition. Where the decoder fails, every further step fails in the same way."""

    def __init__(self, part: Any, at: Any, batches: _Batches, records: Iterator[Any]) -> None:
        self._part, self._at, self._batches, self._records = part, at, batches, records
        self._error: UndecodableError | None = None

    def __next__(self) -> Any:
        if self._error is not None:
            raise self._error
        try:
            return next(self._records)
        except StopIteration:
            raise
        except Exception as error:  # whatever a decoder of foreign bytes raises
            self._error = UndecodableError(self._failed(error))
            raise self._error from error

    def _failed(self, error: Exception) -> Undecodable:
        first = int(max(self._part.fetch_offset, self._part.next_fetch_offset))
        last = max(first, _last_offset(self._batches.last, first))
        return Undecodable(self._at.topic, self._at.partition, first, last, f"{type(error).__name__}: {error}")


def _last_offset(batch: Any, otherwise: int) -> int:
    """The batch's last offset where its header can be believed: in our topics, a batch has a record per offset."""
    try:
        is_whole = batch.records_count == batch.last_offset_delta + 1
    except AttributeError:  # no batch, or one of an old format
        return otherwise
    return int(batch.last_offset) if is_whole else otherwise


_read_odd_header_names()
_note_refusals()
_name_undecodable_records()
