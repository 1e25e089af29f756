"""What only a true broker shows: takeover in a group, a broker's restart, a zombie; needs KAFKA_HOME."""

import json
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition

from lab.embedded.servers import ApacheKafka
from stream.kafka import connection
from stream.kafka.transactions import Transactions
from stream.process.inputs import Inputs
from stream.replay.replay import events_sent
from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import Scenario, topics
from tests.stream.test_exactly_once import assert_offsets_at_the_end, assert_whole

pytestmark = pytest.mark.kafka_home


@pytest.fixture(scope="module")
def apache(kafka_home: Path):
    with ApacheKafka(kafka_home) as broker:
        yield broker


def harness(broker, redis_url, topic_prefix, tmp_path):
    return closing(StreamHarness(broker.servers, redis_url, topic_prefix, tmp_path / "stream.log", partitions=4))


@pytest.fixture
def pair(apache, redis_url, topic_prefix, tmp_path):
    with harness(apache, redis_url, topic_prefix, tmp_path) as made:
        yield made


def joined_some(pair, more_than=0):
    await_that(lambda: pair.end(pair.topics.join_state) > more_than, 60, pair.log.read_text)
    return pair.end(pair.topics.join_state)


def joined_member(pair):
    member = Inputs(pair.kafka_servers, pair.topics, "a")
    await_that(lambda: member.poll(50) == [] and not member.are_moving() and member.claim() != [], 30, str)
    return member


def test_the_first_who_asks_a_fresh_broker_for_a_group_waits_for_its_coordinator(kafka_home, topic_prefix, tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_text("{}\n")
    with ApacheKafka(kafka_home) as broker:
        assert events_sent(broker.servers, topics(topic_prefix), file) == 0


def test_a_second_instance_takes_over_what_a_killed_one_leaves(pair):
    scenario = Scenario(400, seed=4)
    first, second = pair.start("a"), pair.start("b")
    pair.send(scenario.lines[:600])
    await_that(lambda: pair.log.read_text().count("partitions [") >= 2, 60, pair.log.read_text)
    before = joined_some(pair)
    pair.send(scenario.lines[600:900])
    joined_some(pair, before)
    first.kill()
    first.wait()
    pair.send(scenario.lines[900:])
    pair.send_end()
    examples = pair.await_examples(len(scenario.labels))
    assert_whole(pair, scenario, examples)
    second.terminate()
    assert second.wait(20) == 0
    assert_offsets_at_the_end(pair)


def test_a_zombie_that_wakes_after_its_partitions_moved_writes_nothing_twice(pair):
    scenario = Scenario(400, seed=6)
    zombie = pair.start("a")
    pair.send(scenario.lines[:600])
    joined_some(pair)
    pair.send(scenario.lines[600:])
    zombie.send_signal(signal.SIGSTOP)
    restored = pair.log.read_text().count("restored")
    pair.start("b")  # takes over when the zombie's session and transaction have ended
    pair.send_end()
    await_that(lambda: pair.log.read_text().count("restored") > restored, 60, pair.log.read_text)
    zombie.send_signal(signal.SIGCONT)
    examples = pair.await_examples(len(scenario.labels))
    time.sleep(1)  # were it to write again, it would now
    assert_whole(pair, scenario, examples)


def test_of_two_processes_with_one_name_one_ends_and_says_why(pair):
    scenario = Scenario(200, seed=7)
    first = pair.start("a")
    pair.send(scenario.lines[:300])
    joined_some(pair)
    second = pair.start("a")
    pair.send(scenario.lines[300:])
    # Also one that has nothing to commit learns it: from its heartbeat.
    await_that(lambda: first.poll() is not None or second.poll() is not None, 25, pair.log.read_text)
    assert "named 'a' has joined and taken over" in pair.log.read_text()
    pair.send_end()
    assert_whole(pair, scenario, pair.await_examples(len(scenario.labels)))


def await_markers(pair):
    """Return when no transaction is decided and not yet so in all its partitions.

    Apache Kafka 4.3.1 loses what is left of one when it is killed then: once it is back its log says "Couldn't find
    leader endpoint for partitions ..., these partitions are likely deleted already", it takes the transaction for
    complete, and its readers wait for ever (docs/reliability.md).
    """
    admin = connection.admin(pair.kafka_servers)
    decided = ["PrepareCommit", "PrepareAbort"]
    await_that(lambda: not any(admin.list_transactions(state_filters=decided).values()), 10, lambda: "still decided")
    admin.close()


def test_the_stream_outlives_a_restart_of_the_broker(kafka_home, redis_url, topic_prefix, tmp_path):
    """On a broker of its own, for it is killed."""
    scenario = Scenario(300, seed=8)
    with ApacheKafka(kafka_home) as apache, harness(apache, redis_url, topic_prefix, tmp_path) as pair:
        process = pair.start()
        pair.send(scenario.lines[:400])
        joined_some(pair)
        process.send_signal(signal.SIGSTOP)  # wherever it is in its transaction
        await_markers(pair)
        apache.process.kill()
        apache.process.wait()
        process.send_signal(signal.SIGCONT)
        apache.restart()
        pair.send(scenario.lines[400:])
        pair.send_end()
        assert_whole(pair, scenario, pair.await_examples(len(scenario.labels)))
        assert process.poll() is None


@pytest.mark.slow
def test_a_restore_that_takes_longer_than_a_session_loses_no_partitions(pair):
    """Nothing is polled meanwhile: heartbeats come from kafka-python's own thread."""
    admin, member = connection.admin(pair.kafka_servers), joined_member(pair)
    transactions = Transactions(pair.kafka_servers, admin, pair.topics, "a")
    assert member.claim() == [0, 1, 2, 3]
    began = time.monotonic()
    while time.monotonic() < began + 7.5:  # the session is 6 s; the main thread is busy, as it is when it restores
        json.dumps(list(range(10_000)))
    member.check_membership(admin)
    positions = {TopicPartition(pair.topics.impressions, 0): 0}
    assert transactions.commit([], positions, member.identity) == []  # refused to who is no member of the generation
    for client in (member, transactions, admin):
        client.close()
