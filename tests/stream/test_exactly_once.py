"""The stream process on a real broker and a real Redis: killed, restarted, and never a loss or a double."""

import json
import random
import signal
import subprocess
import time
from collections import Counter

import pytest
from kafka import TopicPartition

from runtime.redis import connect
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, group_id
from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import Scenario, feedback, impression


def labels_of(examples):
    return {e["impression_id"]: e["labels"] for e in examples}


def assert_whole(harness: StreamHarness, scenario: Scenario, examples) -> None:
    """Each impression once, with its labels; each unusable message once, byte for byte, with its origin."""
    assert Counter(e["impression_id"] for e in examples) == Counter(list(scenario.labels))
    assert labels_of(examples) == scenario.labels
    count = len(scenario.labels) + harness.partitions
    requests = [
        json.loads(r.value)["impression_id"]
        for r in harness.await_records(lambda: harness.read(harness.topics.teacher_requests), count)
    ]
    ends = [f"end{p}" for p in range(harness.partitions)]
    assert Counter(requests) == Counter([*scenario.labels, *ends])
    assert_dead_letters(harness, scenario)


def assert_dead_letters(harness: StreamHarness, scenario: Scenario) -> None:
    letters = harness.await_dead_letters(len(scenario.bad + scenario.late))
    assert Counter(r.value for r in letters) == Counter(scenario.bad + scenario.late)
    for topic in (harness.topics.impressions, harness.topics.feedback):
        inputs = {(r.partition, r.offset): r for r in harness.read(topic)}
        for letter in (r for r in letters if r.topic == f"{topic}.dlq"):
            headers = {name: value.decode() for name, value in letter.headers}
            place = int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"])
            original = inputs[place]
            assert (headers["__streams.errors.topic"], letter.key, letter.value) == (
                topic,
                original.key,
                original.value,
            )
            assert headers["__streams.errors.message"]


def assert_offsets_at_the_end(harness: StreamHarness) -> None:
    admin = connection.admin(harness.kafka_servers)
    try:
        group = group_id(harness.topics, STREAM_GROUP)
        committed = {at: o.offset for at, o in admin.list_group_offsets(group)[group].items()}
    finally:
        admin.close()
    for topic in (harness.topics.impressions, harness.topics.feedback):
        offsets = [committed[TopicPartition(topic, p)] for p in range(harness.partitions)]
        assert sum(offsets) == harness.end(topic)


def test_kill_9_at_random_moments_loses_and_doubles_nothing(harness):
    scenario, chance = Scenario(600, seed=3), random.Random(5)
    process, sent = harness.start(), 0
    for kill in range(4):
        upto = len(scenario.lines) * (kill + 1) // 4
        before = harness.end(harness.topics.join_state)
        harness.send(scenario.lines[sent:upto])
        sent = upto
        await_that(lambda start=before: harness.end(harness.topics.join_state) > start, 60, harness.log.read_text)
        time.sleep(chance.random() * 0.15)  # the random moment
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = harness.start()
    harness.send_end()
    examples = harness.await_examples(len(scenario.labels))
    assert_whole(harness, scenario, examples)
    await_aggregates(harness, examples)
    process.terminate()
    assert process.wait(10) == 0
    assert_offsets_at_the_end(harness)


def await_aggregates(harness: StreamHarness, examples) -> None:
    """Return when the online store has the aggregates of these examples, and of no others."""
    expected = {"item:shown": Counter(e["item_id"] for e in examples), "user:seen": Counter(), "user:liked": Counter()}
    for e in examples:
        expected["user:seen"][str(e["user_id"])] += 1
        expected["user:liked"][str(e["user_id"])] += e["labels"]["like"]
    with connect(harness.redis_url) as client:

        def pushed():
            found = {name: client.hgetall(f"{harness.prefix}{name}") for name in expected}
            return {name: {k.decode(): float(v) for k, v in of.items()} for name, of in found.items()}

        await_that(lambda: pushed() == expected, 60, lambda: f"{pushed()}, not {expected}\n{harness.log.read_text()}")


def test_a_kill_between_commit_and_push_is_made_good_by_the_restart(harness, scenario):
    harness.send(scenario.lines)
    harness.send_end()
    first = harness.start()
    examples = harness.await_examples(len(scenario.labels))
    first.kill()
    first.wait()
    with connect(harness.redis_url) as client:
        client.flushall()  # as if no push had come through
    harness.start()
    await_aggregates(harness, examples)
    assert len(harness.read(harness.topics.examples)) == len(scenario.labels)


def test_a_log_read_in_one_go_gives_the_same_examples_as_in_many(harness, scenario):
    harness.send(scenario.lines)
    harness.send_end()
    harness.start()
    assert_whole(harness, scenario, harness.await_examples(len(scenario.labels)))


def test_the_state_log_is_trimmed_and_a_restart_reads_what_is_left(harness):
    scenario = Scenario(800, seed=1)
    process, log = harness.start(floor=20_000), harness.topics.join_state
    for start in range(0, len(scenario.lines), 200):
        before = harness.end(log)
        harness.send(scenario.lines[start : start + 200])
        await_that(lambda was=before: harness.end(log) > was, 60, harness.log.read_text)
    harness.send_end()
    harness.await_examples(len(scenario.labels))
    process.kill()
    process.wait()
    records = harness.read(log)
    assert records[0].offset > records[-1].offset / 4
    harness.start(floor=20_000)  # restores from what is left: nothing is joined again
    more = Scenario(20, seed=2, first=10_000, start_ms=3_000_000_000)
    harness.send(more.lines)
    harness.send_end(4_000_000_000)
    examples = harness.await_examples(len(scenario.labels) + 1 + len(more.labels))
    assert Counter(e["impression_id"] for e in examples).most_common(1)[0][1] == 1


def test_the_state_log_of_an_earlier_version_is_taken_over(harness):
    scenario, log = Scenario(20, seed=1), harness.topics.join_state
    watermark = {
        "watermark_ms": 1_000,
        "newest_ms": {harness.topics.impressions: 1_000, harness.topics.feedback: 1_000},
    }
    offsets = {harness.topics.impressions: 0, harness.topics.feedback: 0}
    position = json.dumps({"offsets": offsets, "watermark": watermark}).encode()
    for key, value in (
        ("closed:i2", b"5000000000"),
        ("snapshot", b""),
        ("closed:i1", b"5000000000"),
        ("position", position),
    ):
        harness.producer.send(log, value, key.encode())
    harness.producer.flush()
    harness.start()
    harness.send(scenario.lines)
    harness.send_end()
    examples = harness.await_examples(len(scenario.labels) - 1)
    assert labels_of(examples) == {i: labels for i, labels in scenario.labels.items() if i != "i1"}


@pytest.mark.parametrize("loss", ["inputs", "state", "the beginning of the state"])
def test_what_is_gone_from_the_broker_ends_the_process_and_is_never_skipped(harness, scenario, loss):
    harness.send(scenario.lines[:200])
    process = harness.start()
    await_that(lambda: harness.end(harness.topics.join_state) > 0, 60, harness.log.read_text)
    process.terminate()
    process.wait()
    harness.send(scenario.lines[200:])
    admin = connection.admin(harness.kafka_servers)
    gone = harness.topics.impressions if loss == "inputs" else harness.topics.join_state
    before = {"inputs": harness.end(gone) - 1, "state": harness.end(gone), "the beginning of the state": 1}[loss]
    admin.delete_records({TopicPartition(gone, 0): before})
    admin.close()
    process = harness.start()
    try:
        assert process.wait(60) == 1
    except subprocess.TimeoutExpired:
        pytest.fail(harness.log.read_text())
    assert "DataLossError" in harness.log.read_text()
    assert harness.topics.prefix in harness.log.read_text().splitlines()[-1]


def test_updates_that_are_gone_before_they_were_counted_end_the_process(harness, scenario):
    harness.send(scenario.lines)
    harness.send_end()
    process = harness.start()
    harness.await_examples(len(scenario.labels))
    process.terminate()
    assert process.wait(10) == 0
    admin, topic = connection.admin(harness.kafka_servers), harness.topics.aggregate_updates
    admin.delete_records({TopicPartition(topic, 0): harness.end(topic)})
    admin.close()
    assert harness.start().wait(60) == 1
    assert f"DataLossError: {topic}-0: the next message to read is" in harness.log.read_text().splitlines()[-1]


def test_an_input_that_is_far_ahead_in_event_time_is_held_and_goes_on(harness):
    """Feedback older than all impressions: these wait, more than are buffered, until the feedback is read."""
    old = [json.dumps(feedback(n, "like", 1, 5)).encode() for n in range(10_000, 14_000)]
    shown = {f"i{n}": json.dumps(impression(n, 1_000_000 + n)).encode() for n in range(4_000)}
    harness.send([("impression", key, raw) for key, raw in shown.items()])
    harness.send([("feedback", "late", raw) for raw in old])
    harness.send_end()
    harness.start()
    examples = harness.await_examples(len(shown))
    assert Counter(e["impression_id"] for e in examples) == Counter(list(shown))
    assert [r.value for r in harness.await_dead_letters(len(old))] == old
