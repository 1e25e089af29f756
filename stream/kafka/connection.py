"""How Kafka clients are built, and errors that say what to do when the brokers do not answer.

Transactions are compressed: they hold the join's state, of which a broker keeps most. What is written one message at a
time is not: on these small records a codec costs more CPU than it saves. graft reads every codec.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaProducer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    InvalidProducerEpochError,
    KafkaError,
    ProducerFencedError,
    RetriableError,
)

from runtime.errors import GraftError, ServiceUnavailableError
from runtime.outage import Outage, wait_for
from runtime.telemetry import StopSignal
from stream.kafka.errors import BrokerRefusedError
from stream.kafka.patches import Consumer, KafkaNetClient, Producer
from stream.kafka.security import used

TRANSACTION_TIMEOUT_MS = 10_000  # how long a killed process's open transaction can hold back the readers
REQUEST_TIMEOUT_MS = 10_000
_FIRST_CONTACT_MS = 5_000
_SESSION_TIMEOUT_MS = 6_000  # the brokers' minimum: a killed member's partitions move after it
_CODEC = "lz4"  # a fourth of the bytes for 2 us an example; zstd makes it a seventh, for 5 us
_T = TypeVar("_T")
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # the broker's limits hold, not the client's


def consumer(kafka_servers: str, **settings: Any) -> Consumer:
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
    client: Consumer = _begun(Consumer, kafka_servers, **{**defaults, **settings})
    return client


def group_member(kafka_servers: str, group_id: str, instance: str, **settings: Any) -> Consumer:
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


def producer(kafka_servers: str, transactional_id: str | None = None, **settings: Any) -> KafkaProducer:
    """An idempotent producer; with a `transactional_id` it fences all earlier producers of that id."""
    transaction = {
        "transactional_id": transactional_id,
        "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
        "compression_type": _CODEC,
    }
    return _begun(
        Producer,
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
    return wait_for(start, Outage("kafka", "this process begins when it is back"), stop)


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
