"""The topics of a project: their partitions, what they keep, and Kafka's ids."""

import re
import uuid
from contextlib import closing

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from runtime.errors import ConfigurationError, ServiceUnavailableError
from stream.config import StreamConfig
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, lag_of
from stream.kafka.topics import TopicLimits, all_topics, ensure_topics, topic_id
from stream.process.state_log import state_id
from tests.stream.pair import stream_config, topics

DAY_MS = 86_400_000


def settings_of(kafka, names, *keys):
    admin = connection.admin(kafka)
    found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, n, list(keys)) for n in names])["topic"]
    admin.close()
    return {name: {key: of[key]["value"] for key in keys} for name, of in found.items()}


def test_topics_are_made_once_and_another_partition_count_is_an_error(kafka, topic_prefix):
    config = StreamConfig(topic_prefix=topic_prefix, partitions=2)
    made = topics(topic_prefix)
    limits = TopicLimits(retention_bytes=5_000_000, segment_bytes=2**20)
    for _ in range(2):
        ensure_topics(kafka, config, made, limits)
    admin = connection.admin(kafka)
    assert set(all_topics(made)) <= set(admin.list_topics())
    admin.close()
    with pytest.raises(ConfigurationError) as caught:
        ensure_topics(kafka, config.model_copy(update={"partitions": 3}), made)
    assert len(caught.value.faults) == len(all_topics(made)) == 10
    assert f"stream.partitions is 3, but topic {made.examples} has 2" in str(caught.value)
    assert "or set it to the topic's count" in str(caught.value)


def test_the_count_of_a_topic_that_was_grown_alone_is_not_advised(kafka, topic_prefix):
    config, made = StreamConfig(topic_prefix=topic_prefix, partitions=2), topics(topic_prefix)
    ensure_topics(kafka, config, made)
    with closing(connection.admin(kafka)) as admin:
        admin.create_partitions({made.examples: 3})
    with pytest.raises(ConfigurationError) as caught:
        ensure_topics(kafka, config, made)
    (fault,) = caught.value.faults
    assert f"topic {made.examples} has 3; use another topic_prefix" in fault
    assert "set it to" not in fault


class _Admin:
    """An admin client whose broker tells something else of a topic than the true one."""

    def __init__(self, client, told):
        self._client, self._told = client, told

    def __getattr__(self, name):
        return getattr(self._client, name)

    def describe_topics(self, names):
        return [self._told(topic) for topic in self._client.describe_topics(names)]


@pytest.fixture
def hears_late(kafka, topic_prefix, monkeypatch):
    """The broker has all topics, and each client's first looks, as many as it is called with, tell of none."""
    ensure_topics(kafka, stream_config(topic_prefix, 2), topics(topic_prefix))
    admin = connection.admin

    def late(looks):
        def client(servers):
            left = iter(range(looks))
            unheard = {"partitions": [], "topic_id": uuid.UUID(int=0)}
            return _Admin(admin(servers), lambda topic: {**topic, **(unheard if next(left, None) is not None else {})})

        monkeypatch.setattr(connection, "admin", client)

    return late


def test_a_topic_that_another_process_has_just_made_is_waited_for(kafka, topic_prefix, hears_late, monkeypatch):
    config, made = stream_config(topic_prefix, 2), topics(topic_prefix)
    hears_late(2)
    ensure_topics(kafka, config, made)
    hears_late(1_000)
    monkeypatch.setattr("stream.kafka.topics._HEARD_OF_SECONDS", 0.3)
    with pytest.raises(ServiceUnavailableError, match=f"does not tell of the topic {topic_prefix}.* yet"):
        ensure_topics(kafka, config, made)


def test_a_state_log_that_the_broker_has_not_heard_of_yet_is_not_taken_for_a_new_one(kafka, topic_prefix, hears_late):
    made = topics(topic_prefix)
    with closing(connection.producer(kafka)) as producer:
        producer.send(made.join_state, b"a state", b"key", partition=1)
        producer.flush()
    there = state_id(kafka, made.join_state)
    assert not there.is_new
    hears_late(2)
    assert state_id(kafka, made.join_state) == there


def test_a_group_is_behind_topics_that_the_broker_has_not_heard_of_yet(kafka, topic_prefix, hears_late):
    made = topics(topic_prefix)
    with closing(connection.producer(kafka)) as producer:
        producer.send(made.examples, b"an example", partition=1)
        producer.flush()
    hears_late(2)
    assert lag_of(kafka, made, LEARNER_GROUP).records == 1


def test_inputs_are_kept_7_days_outputs_30_dead_letters_90_and_the_state_log_for_ever(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix), made)
    days = {
        name: int(found["retention.ms"]) / DAY_MS
        for name, found in settings_of(kafka, all_topics(made), "retention.ms").items()
    }
    assert days == {
        made.impressions: 7,
        made.feedback: 7,
        made.examples: 30,
        made.teacher_requests: 30,
        made.aggregate_updates: -1 / DAY_MS,
        made.join_state: -1 / DAY_MS,
        **{made.dead_letters(name): 90 for name in made.with_dead_letters},
    }


def test_byte_limits_hold_beside_the_retention(kafka, topic_prefix):
    made = topics(topic_prefix)
    limits = TopicLimits(retention_bytes=5_000_000, segment_bytes=2**20)
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix), made, limits)
    found = settings_of(kafka, [made.examples, made.join_state], "retention.ms", "retention.bytes")
    assert found[made.examples] == {"retention.ms": str(30 * DAY_MS), "retention.bytes": "5000000"}
    assert found[made.join_state] == {"retention.ms": "-1", "retention.bytes": "-1"}


def test_topics_that_exist_keep_the_retention_that_they_were_given(kafka, topic_prefix):
    made, config = topics(topic_prefix), StreamConfig(topic_prefix=topic_prefix)
    limits = {"replication_factor": 1, "configs": {"retention.ms": str(90 * DAY_MS)}}
    with closing(connection.admin(kafka)) as admin:
        admin.create_topics({made.examples: {"num_partitions": config.partitions, **limits}})
    ensure_topics(kafka, config, made)
    assert settings_of(kafka, [made.examples], "retention.ms")[made.examples]["retention.ms"] == str(90 * DAY_MS)


def test_a_broker_without_topic_ids_tells_none(kafka, topic_prefix, monkeypatch):
    made, admin = topics(topic_prefix), connection.admin
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix), made)
    no_id = {"topic_id": uuid.UUID(int=0)}
    monkeypatch.setattr(connection, "admin", lambda servers: _Admin(admin(servers), lambda topic: {**topic, **no_id}))
    assert topic_id(kafka, made.examples) is None


def test_apache_kafka_gives_a_topic_that_was_made_anew_another_id(apache_kafka, topic_prefix):
    servers, made, config = apache_kafka.servers, topics(topic_prefix), StreamConfig(topic_prefix=topic_prefix)
    ensure_topics(servers, config, made)
    first = topic_id(servers, made.examples)
    admin = connection.admin(servers)
    admin.delete_topics([made.examples])
    admin.close()
    ensure_topics(servers, config, made)
    second = topic_id(servers, made.examples)
    assert first != second
    assert all(re.fullmatch(r"[0-9a-f-]{36}", str(found)) for found in (first, second))
