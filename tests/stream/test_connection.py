"""What kafka-python's clients are given beside it."""

import gc
import threading
from pathlib import Path

import pytest
from kafka import TopicPartition

from lab.embedded import free_port
from runtime.errors import ServiceUnavailableError
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics


def test_a_member_with_short_polls_gets_the_partitions_that_are_added_after_it_joined(kafka, topic_prefix):
    """A poll ends while the broker still answers the rejoin, which nothing but the topic's metadata has asked for."""
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 1), made)
    member = connection.group_member(kafka, f"{topic_prefix}group", "a", auto_offset_reset="earliest")
    admin = connection.admin(kafka)
    try:
        member.subscribe([made.impressions])
        await_that(lambda: member.poll(50) == {} and len(member.assignment()) == 1, 30, lambda: "not joined")
        admin.create_partitions({made.impressions: 3})
        await_that(lambda: partitions(admin, made.impressions) == 3, 10, lambda: "the broker does not tell of them yet")
        member._client.cluster.request_update()  # by itself it would look within five minutes
        await_that(lambda: member.poll(1) == {} and len(member.assignment()) == 3, 10, lambda: "no partitions came")
    finally:
        admin.close()
        member.close(autocommit=False)


def test_a_consumer_that_has_read_all_lets_the_processor_rest(kafka, topic_prefix):
    """Also beside a broker that says at once that it has nothing, instead of waiting."""
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 1), made)
    consumer = connection.consumer(kafka)
    at = TopicPartition(made.impressions, 0)
    try:
        consumer.assign([at])
        consumer.seek(at, 0)
        consumer.poll(200)
        asked, fetch = [], consumer._fetcher._create_fetch_requests
        consumer._fetcher._create_fetch_requests = lambda: asked.append(1) or fetch()
        assert consumer.poll(1_000) == {}
    finally:
        consumer.close(autocommit=False)
    assert 1 <= len(asked) <= 150


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # a try that ends within a connect; counted here
@pytest.mark.parametrize("begin", [connection.admin, connection.consumer, connection.producer])
def test_of_a_client_that_does_not_reach_its_brokers_neither_thread_nor_file_stays(begin, monkeypatch, caplog):
    """A process that waits for Kafka begins one each second or so, for as long as it takes."""
    monkeypatch.setattr(connection, "_FIRST_CONTACT_MS", 100)
    caplog.set_level("CRITICAL", "kafka")  # as everywhere; a line that is kept keeps its error's sockets
    nobody = f"127.0.0.1:{free_port()}"

    def held():
        with pytest.raises(ServiceUnavailableError):
            begin(nobody)
        gc.collect()  # kafka-python leaves refused sockets to it
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    threads, files = held()
    for _ in range(3):
        threads_now, files_now = held()
        assert threads_now <= threads  # fewer where what an earlier test left ends meanwhile
        assert files_now <= files


def partitions(admin, topic):
    (told,) = admin.describe_topics([topic])
    return len(told["partitions"])
