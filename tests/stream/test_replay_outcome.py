"""What a replay says of its messages at its end."""

import json

import pytest

from stream.replay.replay import replay
from stream.replay.replay_outcome import Outcome, await_outcome
from tests.stream.pair import feedback, impression

NOON_MS = 1_767_268_800_000


@pytest.fixture
def events(tmp_path):
    """Eight impressions, a feedback that is no label, and two lines of noise."""
    rows = [{"type": "impression", **impression(n, NOON_MS + n)} for n in range(8)]
    rows.append({"type": "feedback", **feedback(1, "like", 3, NOON_MS + 9)})
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "noise\nnoise\n")
    return path


def send(harness, path):
    return replay(path, harness.kafka_servers, harness.topics, max_lag=None, progress=lambda *_: None)


def test_dead_letters_of_a_replay_are_counted_by_reason_without_those_of_others(harness, events):
    harness.send([("impression", "x", b"of another producer")])
    harness.start()
    harness.await_dead_letters(1)
    first = await_outcome(harness.kafka_servers, harness.topics, send(harness, events))
    assert first == Outcome(has_reader=True, unread=0, dead_letters={"invalid": 3})


def test_a_file_that_was_joined_before_becomes_dead_letters_and_the_replay_says_so(harness, events, tmp_path):
    later = tmp_path / "later.jsonl"
    hour = 3_600_000
    rows = [
        {"type": "impression", **impression(99, NOON_MS + hour)},
        {"type": "feedback", **feedback(99, "like", 1, NOON_MS + hour)},
    ]
    later.write_text("".join(json.dumps(row) + "\n" for row in rows))
    harness.start()
    harness.send([("impression", "x", b"noise")])
    harness.await_dead_letters(1)
    assert await_outcome(harness.kafka_servers, harness.topics, send(harness, later)) == Outcome(
        has_reader=True, unread=0, dead_letters={}
    )
    outcome = await_outcome(harness.kafka_servers, harness.topics, send(harness, events))
    assert outcome == Outcome(has_reader=True, unread=0, dead_letters={"too_late": 8, "invalid": 3})


def test_without_a_stream_process_nobody_waits_and_all_is_unread(harness, events):
    outcome = await_outcome(harness.kafka_servers, harness.topics, send(harness, events), patience_seconds=60)
    assert outcome == Outcome(has_reader=False, unread=11, dead_letters={})


def test_a_stream_that_makes_no_progress_is_waited_for_no_longer_than_the_patience(harness, events):
    process = harness.start()
    harness.send([("impression", "x", b"noise")])
    harness.await_dead_letters(1)
    process.kill()
    process.wait()
    outcome = await_outcome(harness.kafka_servers, harness.topics, send(harness, events), patience_seconds=0.5)
    assert outcome == Outcome(has_reader=True, unread=11, dead_letters={})
