"""How Kafka clients are built, and errors that say what to do when the brokers do not answer.

Transactions are compressed: they hold the join's state, of which a broker keeps most. What is written one message at a
time is not: on these small records a codec costs more CPU than it saves. graft reads every codec.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    InvalidProducerEpochError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    RetriableError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient

from runtime.absence import Absence, wait_for
from runtime.errors import GraftError, ServiceUnavailableError
from runtime.telemetry import StopSignal
from stream.kafka.header_names import read_odd_header_names
from stream.kafka.refusals import BrokerRefusedError, name_refusals, raise_refusal
from stream.kafka.security import used
from stream.kafka.undecodable import name_undecodable_records

read_odd_header_names()
name_undecodable_records()
name_refusals()

TRANSACTION_TIMEOUT_MS = 10_000  # how long a killed process's open transaction can hold back the readers
_LONGEST_ANSWER_MS = TRANSACTION_TIMEOUT_MS + 5_000  # the broker has aborted the transaction by then
REQUEST_TIMEOUT_MS = 10_000
_FIRST_CONTACT_MS = 5_000
_SESSION_TIMEOUT_MS = 6_000  # the brokers' minimum: a killed member's partitions move after it
_EARLY_SECONDS = 0.01  # an empty answer of a broker that waits takes `fetch_max_wait_ms`
_AFTER_EARLY_SECONDS = 0.03  # an idle stream takes 8.5 % of a core so; asking every 10 ms took 15.1 %
_REBALANCE_MS = 1_000  # a broker answers a member within milliseconds once all members have asked
_CODEC = "lz4"  # a fourth of the bytes for 2 us an example; zstd makes it a seventh, for 5 us
_T = TypeVar("_T")
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # the broker's limits hold, not the client's


def consumer(kafka_servers: str, **settings: Any) -> KafkaConsumer:
    """A consumer that sees committed transactions only, commits nothing by itself and never skips a gap.

    An offset that the topic no longer has raises OffsetOutOfRangeError from poll.
    """
    defaults = {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "max_poll_records": 500,
        "fetch_max_wait_ms": 100,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "allow_auto_create_topics": False,
    }
    return _begun(_Consumer, kafka_servers, **{**defaults, **settings})


class _Consumer(KafkaConsumer):  # type: ignore[misc] # kafka-python is untyped
    """One that finishes each rebalance that it has begun, and does not ask a broker again and again.

    kafka-python 3.0.12 forgets one that only new metadata has asked for, as after a group's first join by a client that
    did not know its topics yet: when a poll ends between the leader's assignment and the broker's answer, no later poll
    looks for the answer, and the member waits for its partitions for ever. An answer that comes between two polls is
    forgotten too, and asked for again; so that short polls do not ask for ever, one waits for it.

    A broker that has nothing is to wait before it says so (`fetch_max_wait_ms`). noida-db 0.2.3 says so at once, and
    kafka-python asks anew at once, which takes a whole core; so an empty answer that came early is waited after.
    """

    def poll(self, timeout_ms: float = 0, **settings: Any) -> Any:
        """As KafkaConsumer's; within a rebalance it takes `_REBALANCE_MS` at most, however short it is to be.

        GraftError where a broker refuses this client. OffsetOutOfRangeError also where the topic was made anew and has
        not so many records.
        """
        raise_refusal(self._manager)
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
        return self._told(super().beginning_offsets, partitions, timeout_ms)

    def end_offsets(self, partitions: Any, timeout_ms: float | None = None) -> Any:
        """As `beginning_offsets`."""
        return self._told(super().end_offsets, partitions, timeout_ms)

    @staticmethod
    def _told(ask: Callable[..., Any], partitions: Any, timeout_ms: float | None) -> Any:
        try:
            return ask(partitions, timeout_ms)
        except KeyError as error:
            raise UnknownTopicOrPartitionError(f"{error.args[0]} is not there any more") from error

    def _poll_once(self, timer: Any, max_records: int, update_offsets: bool = True) -> Any:  # noqa: FBT001, FBT002 - as there
        began = time.monotonic()
        records = super()._poll_once(timer, max_records, update_offsets=update_offsets)
        if not records and time.monotonic() - began < _EARLY_SECONDS:
            time.sleep(min(_AFTER_EARLY_SECONDS, timer.timeout_ms / 1000))
        return records


def group_member(kafka_servers: str, group_id: str, instance: str, **settings: Any) -> KafkaConsumer:
    """A static member of a group: it gets its partitions back at once after a kill, the same numbers of all topics."""
    return consumer(
        kafka_servers,
        group_id=group_id,
        group_instance_id=instance,
        session_timeout_ms=_SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=_SESSION_TIMEOUT_MS // 3,
        partition_assignment_strategy=[RangePartitionAssignor],
        **settings,
    )


class _Producer(KafkaProducer):  # type: ignore[misc] # kafka-python is untyped
    """One whose transaction ends. kafka-python 3.0.12 waits without a limit for the answer to its last two requests.

    After a broker's restart an answer may never come, while the broker has long aborted the transaction.
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


def producer(kafka_servers: str, transactional_id: str | None = None, **settings: Any) -> KafkaProducer:
    """An idempotent producer; with a `transactional_id` it fences all earlier producers of that id."""
    transaction = {
        "transactional_id": transactional_id,
        "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
        "compression_type": _CODEC,
    }
    return _begun(
        _Producer,
        kafka_servers,
        **(transaction if transactional_id else {}),
        acks="all",
        linger_ms=5,
        batch_size=128 * 1024,
        max_request_size=_MAX_MESSAGE_BYTES,
        max_block_ms=30_000,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        delivery_timeout_ms=15_000 if transactional_id else 120_000,
        allow_auto_create_topics=False,
        **settings,
    )


def is_fenced(error: KafkaError) -> bool:
    """Whether a producer failed because a later one has its transactional id.

    kafka-python raises the reason itself, a KafkaError that carries it, or one that has it in its text alone, by the
    call that meets it.
    """
    fences = (InvalidProducerEpochError, ProducerFencedError)
    return isinstance(error, fences) or any(fence.__name__ in str(error) for fence in fences)


def admin(kafka_servers: str) -> KafkaAdminClient:
    """A client for topics, groups and the deletion of records."""
    return _begun(KafkaAdminClient, kafka_servers, request_timeout_ms=REQUEST_TIMEOUT_MS)


def wait_until_ready(kafka_servers: str, seconds: float) -> None:
    """Return when the brokers answer a metadata request; ServiceUnavailableError after `seconds`."""
    client = _begun(KafkaAdminClient, kafka_servers, bootstrap_timeout_ms=int(seconds * 1000))
    with reaching(kafka_servers), closing(client):
        client.list_topics()


def wait_for_kafka(start: Callable[[], _T], stop: StopSignal) -> _T:
    """What `start` gives once Kafka answers; until then the process waits and is not ready.

    StoppedError when a stop is asked for meanwhile.
    """
    return wait_for(start, Absence("kafka", "this process begins when it is back"), stop)


@contextmanager
def reaching(kafka_servers: str) -> Iterator[None]:
    """Turn Kafka's connection errors inside the block into ServiceUnavailableError, a refusal into GraftError."""
    try:
        yield
    except BrokerRefusedError as error:
        raise GraftError(str(error)) from error
    except AuthorizationError as error:
        raise GraftError(f"Kafka at {kafka_servers} refuses this client: {error}") from error
    except RetriableError as error:
        raise ServiceUnavailableError(
            f"Kafka at {kafka_servers} does not answer ({type(error).__name__}); "
            "start it with 'docker compose up -d kafka' or set GRAFT_KAFKA"
        ) from error


def _begun(kind: Callable[..., Any], kafka_servers: str, **settings: Any) -> Any:
    """A client of this kind that has reached the brokers; of one that could not, neither thread nor file stays."""
    with reaching(kafka_servers), ExitStack() as unless_begun:

        def connect(**of_client: Any) -> KafkaNetClient:
            return unless_begun.enter_context(closing(KafkaNetClient(**of_client)))

        client = kind(**{**_common(kafka_servers), **settings}, kafka_client=connect)
        unless_begun.pop_all()
        return client


def _common(kafka_servers: str) -> dict[str, Any]:
    return {
        "bootstrap_servers": kafka_servers.split(","),
        "bootstrap_timeout_ms": _FIRST_CONTACT_MS,
        "reconnect_backoff_max_ms": 1_000,  # kafka-python's 30 s would cost 20 s after a broker's restart
        **used().client_settings(),
    }
