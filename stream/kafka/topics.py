"""The topics of a project on a broker: made once, checked at every start; and how a partition of one is read whole."""

import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResourceType, OffsetSpec
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError
from pydantic import Field

from runtime.errors import ConfigurationError, ServiceUnavailableError
from runtime.frozen_model import FrozenModel
from stream.config import StreamConfig, Topics
from stream.kafka import connection

_log = logging.getLogger(__name__)

_MAX_EVENT_BYTES = 1_000_000
_MAX_RECORD_BYTES = 4_000_000  # an event with its features, or in a dead letter with its reason, still fits
_DAY_MS = 86_400_000
_RETENTION = "retention.ms"
_INPUT_DAYS = 7  # so long the stream process may be down without losing what it has not joined
_OUTPUT_DAYS = 30  # so far back a new student learns without an example log, and a new teacher's backfill reaches
_DEAD_LETTER_DAYS = 90  # to mend their cause and put them back
_TOPIC = ConfigResourceType.TOPIC
_HEARD_OF_SECONDS = 10.0


class TopicLimits(FrozenModel):
    """How much of each event and output topic a broker keeps; the join's state log is cleaned by its writer.

    A broker deletes whole segments, so both are needed.
    """

    retention_bytes: int = Field(ge=1)
    segment_bytes: int = Field(ge=1)


_UNLIKE = ", for all topics of a project need one count, and these differ: docs/operations.md#grow-partitions"


def ensure_topics(kafka_servers: str, config: StreamConfig, topics: Topics, limits: TopicLimits | None = None) -> None:
    """Make the topics that are missing; ConfigurationError when one has another partition count.

    ServiceUnavailableError as `described`.

    Existing topics keep their settings. Everything in a project is partitioned by impression id or by entity, so a
    partition count cannot be changed once there is data.
    """
    wanted = {name: _settings(name, topics, limits) for name in all_topics(topics)}
    client = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            existing = set(client.list_topics())
            for name in wanted.keys() - existing:
                _create(client, name, config.partitions, wanted[name])
            counts = {name: len(topic["partitions"]) for name, topic in described(client, wanted).items()}
    finally:
        client.close()
    alike = len(set(counts.values())) == 1
    advice = "use another topic_prefix" + (", or set it to the topic's count" if alike else _UNLIKE)
    faults = [
        f"graft.toml: stream.partitions is {config.partitions}, but topic {name} has {count}; {advice}"
        for name, count in sorted(counts.items())
        if count != config.partitions
    ]
    if faults:
        raise ConfigurationError(faults)


def described(client: KafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the broker tells of each of these topics, with its partitions and its id, by name.

    A broker that has not heard yet of a topic that this or another process has just made tells of no partitions and no
    id. That is waited for; ServiceUnavailableError after 10 s, and where there is no such topic.
    """
    wanted = list(names)
    deadline = time.monotonic() + _HEARD_OF_SECONDS
    while True:
        found = {topic["name"]: topic for topic in client.describe_topics(wanted)}
        unknown = sorted(name for name in wanted if not found[name]["partitions"])
        if not unknown:
            return found
        if time.monotonic() > deadline:
            raise unheard_error(unknown[0])
        time.sleep(0.1)


def partitions_of(client: KafkaAdminClient, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of these topics. ServiceUnavailableError as `described`."""
    return [
        TopicPartition(name, partition["partition_index"])
        for name, topic in described(client, topics).items()
        for partition in topic["partitions"]
    ]


def unheard_error(topic: str) -> ServiceUnavailableError:
    """Says that the broker tells of no partition of a topic."""
    return ServiceUnavailableError(
        f"Kafka does not tell of the topic {topic} yet; 'graft stream run' makes the topics of a project"
    )


def topic_id(kafka_servers: str, topic: str) -> str | None:
    """Kafka's own id of a topic, which another topic of the same name does not have; None where the broker tells none.

    ServiceUnavailableError as `described`.
    """
    client = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            found = described(client, [topic])[topic].get("topic_id")
    finally:
        client.close()
    return str(found) if found and uuid.UUID(str(found)).int else None


def all_topics(topics: Topics) -> tuple[str, ...]:
    """Every topic of a project."""
    return (
        topics.impressions,
        topics.feedback,
        topics.examples,
        topics.teacher_requests,
        topics.aggregate_updates,
        topics.join_state,
        *map(topics.dead_letters, topics.with_dead_letters),
    )


def _settings(name: str, topics: Topics, limits: TopicLimits | None) -> dict[str, str]:
    is_input = name in (topics.impressions, topics.feedback)
    most_bytes = dict.fromkeys((topics.impressions, topics.feedback), _MAX_EVENT_BYTES)
    settings = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(most_bytes.get(name, _MAX_RECORD_BYTES)),
        _RETENTION: str(_retention_ms(name, topics)),
    }
    if is_input:  # the broker's clock, so that a producer's cannot say when its event came
        settings["message.timestamp.type"] = "LogAppendTime"
    if name in (topics.join_state, topics.aggregate_updates):
        return {**settings, "retention.bytes": "-1"}
    if limits:
        settings |= {"retention.bytes": str(limits.retention_bytes), "segment.bytes": str(limits.segment_bytes)}
    return settings


def _retention_ms(name: str, topics: Topics) -> int:
    """How long a topic of the project keeps its records; -1: for ever."""
    if name in (topics.join_state, topics.aggregate_updates):
        return -1
    if name in map(topics.dead_letters, topics.with_dead_letters):
        return _DEAD_LETTER_DAYS * _DAY_MS
    return (_INPUT_DAYS if name in (topics.impressions, topics.feedback) else _OUTPUT_DAYS) * _DAY_MS


def _create(client: KafkaAdminClient, name: str, partitions: int, settings: dict[str, str]) -> None:
    topic = {"num_partitions": partitions, "replication_factor": -1, "configs": settings}
    try:
        client.create_topics({name: topic}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return  # another process was faster; its partition count is checked with the others
    except InvalidReplicationFactorError as error:  # so says also a broker that knows no broker yet, itself included
        raise ServiceUnavailableError(
            f"Kafka has too few brokers now for topic {name} by its default.replication.factor; start the others, or "
            f"lower it ({error})"
        ) from error


_POLL_MS = 200
_SECONDS_WITHOUT_PROGRESS = 30  # above the transaction time-out, which ends a killed writer's transaction


class WholePartition(NamedTuple):
    """The offset at which a partition begins, and its committed records, which are read as they are taken.

    `records` waits for open transactions to be decided, so that nothing committed can appear later before its end.
    ServiceUnavailableError after 30 s without progress; OffsetOutOfRangeError when the beginning was deleted meanwhile.
    """

    begin: int
    records: Iterator[Any]


def whole_partition(reader: KafkaConsumer, admin: KafkaAdminClient, at: TopicPartition) -> WholePartition:
    """The partition as it is now; `reader` is given it, and must read nothing else until the last record was taken."""
    reader.assign([at])
    begin = reader.beginning_offsets([at])[at]
    # After the beginning: of a process that stands still in between, another one may delete records beyond this end,
    # and an empty partition would look lost. As it is, the reader finds its beginning gone.
    end = admin.list_partition_offsets({at: OffsetSpec.LATEST})[at].offset
    reader.seek(at, begin)
    return WholePartition(begin, _records(reader, at, end))


def _records(reader: KafkaConsumer, at: TopicPartition, end: int) -> Iterator[Any]:
    polls_left = polls = _SECONDS_WITHOUT_PROGRESS * 1000 // _POLL_MS
    while (position := reader.position(at)) < end:
        if polls_left == 0:
            raise ServiceUnavailableError(
                f"{at.topic}-{at.partition}: no progress at offset {position} of {end}; "
                "does a transaction stay open, or is the broker gone?"
            )
        yield from reader.poll(timeout_ms=_POLL_MS).get(at, [])
        polls_left = polls if reader.position(at) > position else polls_left - 1
