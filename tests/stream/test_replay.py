"""Event files on their way to Kafka."""

import json
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from runtime.errors import ServiceUnavailableError
from stream import connection
from stream.event_file import impressions_of, read_events
from stream.groups import STREAM_GROUP, group_id
from stream.replay import ReplayCount, replay
from tests.stream.pair import feedback, impression

ROWS = [
    {"type": "impression", **impression(1, 10)},
    {"type": "feedback", **feedback(1, "like", 1, 20)},
    {"type": "impression", **impression(2, 30, item_id="é")},
]
BAD = [b"{not json", b'{"type": "click"}', b"\xff\xfe"]


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([*(json.dumps(row).encode() for row in ROWS), b"", *BAD]) + b"\n")
    return path


def send(path, harness, **options):
    calls = []
    options = {"rate": None, "max_lag": None, "progress": lambda *call: calls.append(call)} | options
    return replay(path, harness.kafka_servers, harness.topics, **options), calls


def test_events_go_to_their_topics_by_key_and_unreadable_lines_go_as_they_are(harness, jsonl):
    count, calls = send(jsonl, harness)
    assert count.events == ReplayCount(impressions=2, feedback=1, unreadable=3)
    assert calls[-1] == (6, 6)
    impressions, feedbacks = harness.read(harness.topics.impressions), harness.read(harness.topics.feedback)
    assert [json.loads(r.value) for r in impressions[:2]] == [impression(1, 10), impression(2, 30, item_id="é")]
    assert [r.key for r in impressions[:2]] == [b"i1", b"i2"]
    assert [r.value for r in impressions[2:]] == BAD
    assert [(r.key, json.loads(r.value)) for r in feedbacks] == [(b"i1", feedback(1, "like", 1, 20))]


def test_parquet_gives_the_same_events_as_json_lines(jsonl, tmp_path):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist([{"task": None, "value": None, **row} for row in ROWS]), path)
    want = [json.loads(e.value) for e in read_events(jsonl) if e.kind != "unreadable"]
    assert [json.loads(e.value) for e in read_events(path)] == want
    assert [i.impression_id for i in impressions_of(path)] == ["i1", "i2"]


def test_the_impressions_of_a_file_leave_out_what_is_none(jsonl, caplog):
    assert [i.item_id for i in impressions_of(jsonl)] == ["item1", "é"]
    assert "3 rows are no valid impressions" in caplog.text


def test_a_row_that_is_nested_too_deep_is_unreadable_like_any_other(tmp_path):
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b"[" * 200_000 + b"\n" + json.dumps(ROWS[0]).encode())
    assert [event.kind for event in read_events(path)] == ["unreadable", "impression"]


def test_a_dry_run_counts_and_sends_nothing(harness, jsonl):
    assert send(jsonl, harness, dry_run=True)[0].events == ReplayCount(2, 1, 3)
    assert harness.end(harness.topics.impressions) == 0


def test_a_rate_is_events_per_second(harness, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(ROWS[0]) + "\n" for _ in range(60)))
    started = time.monotonic()
    send(path, harness, rate=100)
    assert 0.5 <= time.monotonic() - started < 5


def test_replay_waits_for_the_stream_process_when_it_is_too_far_behind(harness, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(ROWS[0]) + "\n" for _ in range(100)))
    thread = threading.Thread(target=send, args=(path, harness), kwargs={"max_lag": 40})
    thread.start()
    thread.join(1.5)
    assert thread.is_alive()
    waiting_at = harness.end(harness.topics.impressions)
    assert 40 <= waiting_at <= 50
    consumer = connection.consumer(harness.kafka_servers, group_id=group_id(harness.topics, STREAM_GROUP))
    while thread.is_alive():
        end = harness.end(harness.topics.impressions)
        consumer.commit({TopicPartition(harness.topics.impressions, 0): OffsetAndMetadata(end)})
        thread.join(0.1)
    consumer.close(autocommit=False)
    assert harness.end(harness.topics.impressions) == 100


def test_a_broker_that_is_not_there_is_named():
    with pytest.raises(ServiceUnavailableError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        connection.wait_until_ready("127.0.0.1:1", 0.5)
