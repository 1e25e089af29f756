"""A project that starts over in Kafka."""

import json
from contextlib import closing

import pytest

from runtime.child import stop_child
from runtime.errors import GraftError
from stream.kafka import connection
from stream.kafka.topic_removal import state_removal, whole_removal
from stream.kafka.topics import all_topics, ensure_topics
from stream.process.state_log import state_id
from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import feedback, impression, stream_config


def two_examples(harness):
    harness.send([("impression", f"i{n}", json.dumps(impression(n, 1_000_000 + n)).encode()) for n in range(2)])
    harness.send([("feedback", "i1", json.dumps(feedback(1, "like", 1, 1_000_005)).encode())])
    harness.send_end()


def test_topics_without_readers_are_removed_with_their_groups_and_made_anew(harness):
    two_examples(harness)
    removal = whole_removal(harness.kafka_servers, harness.topics)
    found = removal.records()
    assert set(found) == set(all_topics(harness.topics))
    assert (found[harness.topics.impressions], found[harness.topics.feedback]) == (3, 2)
    removal.refuse_if_read()
    removal.remove()
    assert removal.records() == {}
    removal.remove()  # nothing is there any more
    ensure_topics(harness.kafka_servers, stream_config(harness.prefix), harness.topics)
    assert set(removal.records().values()) == {0}


def test_a_stream_that_runs_is_named_and_nothing_is_removed(harness):
    two_examples(harness)
    harness.start("morning")
    harness.await_examples(2)
    removal = state_removal(harness.kafka_servers, harness.topics)
    with pytest.raises(GraftError, match=rf"still work with it: {harness.prefix}graft-stream/morning "):
        removal.refuse_if_read(leave_seconds=0.5)
    assert removal.records()[harness.topics.join_state] > 0


def test_a_state_log_is_new_until_something_was_written_to_it(harness):
    name, is_new = state_id(harness.kafka_servers, harness.topics.join_state)
    assert (name.partition(" ")[0], is_new) == (harness.topics.join_state, True)  # Apache Kafka's id comes behind it
    two_examples(harness)
    harness.start()
    harness.await_examples(2)
    assert state_id(harness.kafka_servers, harness.topics.join_state) == (name, False)


def test_on_apache_kafka_a_removed_state_is_joined_again_from_the_inputs(
    apache_kafka, redis_url, topic_prefix, tmp_path
):
    servers = apache_kafka.servers
    harness = StreamHarness(servers, redis_url, topic_prefix, tmp_path / "stream.log")
    two_examples(harness)
    process = harness.start()
    harness.await_examples(2)
    first = state_id(servers, harness.topics.join_state)
    stop_child(process)
    removal = state_removal(servers, harness.topics)
    removal.refuse_if_read()
    removal.remove()
    harness.start()
    assert [e["impression_id"] for e in harness.await_examples(4)] == ["i0", "i1"] * 2
    assert state_id(servers, harness.topics.join_state).name != first.name
    harness.close()


def test_on_apache_kafka_an_input_that_is_made_anew_ends_the_stream_and_its_next_start_with_one_line(
    apache_kafka, redis_url, topic_prefix, tmp_path
):
    """It would read on behind what it has read of the old one, and leave out what comes before that."""
    servers = apache_kafka.servers
    with closing(StreamHarness(servers, redis_url, topic_prefix, tmp_path / "stream.log")) as harness:
        made = harness.topics
        two_examples(harness)
        process = harness.start()
        harness.await_examples(2)
        await_that(lambda: "records=5 " in harness.log.read_text(), 30, harness.log.read_text)
        with closing(connection.admin(servers)) as admin:
            admin.delete_topics([made.impressions])
            await_that(lambda: made.impressions not in admin.list_topics(), 30, str)
        ensure_topics(servers, stream_config(topic_prefix), made)
        told = f"{made.impressions}-0: the next message to read is 3, but the topic ends at 0: it was made anew"
        assert process.wait(60) == 1
        first = harness.log.read_text()
        assert told in first or "this member must have the same partitions of each topic" in first  # while it was away
        assert harness.start().wait(60) == 1
        assert told in harness.log.read_text().removeprefix(first)
