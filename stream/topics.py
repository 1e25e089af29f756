"""The topics of a pair on a broker: made once, checked at every start."""

from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError
from pydantic import BaseModel, ConfigDict, Field

from runtime.errors import ConfigurationError
from stream import connection
from stream.config import StreamConfig, Topics

_MAX_EVENT_BYTES = 1_000_000
_MAX_RECORD_BYTES = 4_000_000  # an event with its features, or in a dead letter with its reason, still fits


class TopicLimits(BaseModel):
    """How much of each event and output topic a broker keeps; the join's state log is bounded by its snapshots.

    A broker deletes whole segments, so both are needed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retention_bytes: int = Field(ge=1)
    segment_bytes: int = Field(ge=1)


def ensure_topics(kafka_servers: str, config: StreamConfig, topics: Topics, limits: TopicLimits | None = None) -> None:
    """Make the topics that are missing; ConfigurationError when one has another partition count.

    Existing topics keep their settings. Everything in a pair is partitioned by impression id, so a partition count
    cannot be changed once there is data.
    """
    wanted = {name: _settings(name, topics, limits) for name in all_topics(topics)}
    client = connection.admin(kafka_servers)
    try:
        with connection.reaching(kafka_servers):
            existing = set(client.list_topics())
            for name in wanted.keys() - existing:
                _create(client, name, config.partitions, wanted[name])
            counts = {t["name"]: len(t["partitions"]) for t in client.describe_topics(list(wanted))}
    finally:
        client.close()
    faults = [
        f"graft.toml: stream.partitions is {config.partitions}, but topic {name} has {count}; "
        "use another topic_prefix, or set it to the topic's count"
        for name, count in sorted(counts.items())
        if count != config.partitions
    ]
    if faults:
        raise ConfigurationError(faults)


def all_topics(topics: Topics) -> tuple[str, ...]:
    """Every topic of a pair."""
    return (
        topics.impressions,
        topics.feedback,
        topics.examples,
        topics.teacher_requests,
        topics.join_state,
        topics.dead_letters(topics.impressions),
        topics.dead_letters(topics.feedback),
    )


def _settings(name: str, topics: Topics, limits: TopicLimits | None) -> dict[str, str]:
    is_input = name in (topics.impressions, topics.feedback)
    settings = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(_MAX_EVENT_BYTES if is_input else _MAX_RECORD_BYTES),
    }
    if is_input:  # the broker's clock, so that a producer's cannot say when its event came
        settings["message.timestamp.type"] = "LogAppendTime"
    if name == topics.join_state:
        return {**settings, "retention.ms": "-1", "retention.bytes": "-1"}
    if limits:
        settings |= {"retention.bytes": str(limits.retention_bytes), "segment.bytes": str(limits.segment_bytes)}
    return settings


def _create(client: KafkaAdminClient, name: str, partitions: int, settings: dict[str, str]) -> None:
    topic = {"num_partitions": partitions, "replication_factor": -1, "configs": settings}
    try:
        client.create_topics({name: topic}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return  # another process was faster; its partition count is checked with the others
