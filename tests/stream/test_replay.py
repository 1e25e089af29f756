"""Event files on their way to Kafka."""

import json
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from runtime.errors import ConfigurationError, InvalidInputError, ServiceUnavailableError
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.replay.event_file import impressions_of, read_events
from stream.replay.replay import Rate, ReplayCount, events_sent, replay
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
    options = {"max_lag": None, "progress": lambda *call: calls.append(call)} | options
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


def test_a_file_of_which_no_row_is_an_event_is_an_error_and_an_empty_one_none(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"\n".join(BAD))
    with pytest.raises(InvalidInputError, match=r"other\.onnx: none of its 3 rows is a valid .* --dry-run' says why"):
        list(impressions_of(tmp_path / "other.onnx"))
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    assert list(impressions_of(tmp_path / "empty.jsonl")) == []


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
    send(path, harness, pace=Rate(100))
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


def numbered(path, count):
    path.write_text("".join(json.dumps({"type": "impression", **impression(i, 10 + i)}) + "\n" for i in range(count)))
    return path


class Killed(Exception):  # noqa: N818 - stands for a kill -9
    pass


def killed_after(events):
    def advance(sent, _total):
        if sent >= events:
            raise Killed

    return advance


def test_a_resumed_replay_sends_what_the_killed_one_had_not_and_then_nothing_more(harness, tmp_path):
    path = numbered(tmp_path / "events.jsonl", 1_200)
    with pytest.raises(Killed):
        send(path, harness, resume=True, progress=killed_after(600))
    assert harness.end(harness.topics.impressions) == 1_000  # whole batches of 500
    sent, _ = send(path, harness, resume=True)
    assert (sent.resumed_at, sent.events.impressions) == (1_000, 200)
    assert send(path, harness, resume=True)[0].events == ReplayCount()
    keys = [record.key for record in harness.read(harness.topics.impressions)]
    assert keys == [f"i{i}".encode() for i in range(1_200)]


def test_another_file_or_one_that_has_changed_is_not_resumed(harness, tmp_path):
    path = numbered(tmp_path / "events.jsonl", 10)
    send(path, harness, resume=True)
    numbered(path, 11)
    with pytest.raises(ConfigurationError, match="is another file than the one that was replayed up to event 10"):
        send(path, harness, resume=True)
    assert send(path, harness)[0].events.impressions == 11  # without it a replay is as it ever was
    assert events_sent(harness.kafka_servers, harness.topics, numbered(path, 10)) == 10


@pytest.mark.parametrize("start", [0, 1, 999, 1_000, 2_500, 2_999, 3_000, 9_000])
def test_a_file_is_read_from_any_event_on(tmp_path, start):
    rows = [{"type": "impression", **impression(i, 10 + i)} for i in range(3_000)]
    lines, parquet = tmp_path / "events.jsonl", tmp_path / "events.parquet"
    lines.write_text("\n\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), parquet, row_group_size=1_100)
    keys = [event.key for event in read_events(lines)][start:]
    assert len(keys) == max(0, 3_000 - start)
    assert [event.key for event in read_events(lines, start)] == keys
    assert [event.key for event in read_events(parquet, start)] == keys
    assert [event.number for event in read_events(parquet, start)] == list(range(start + 1, 3_001))


def test_an_event_tells_its_time_where_it_is_a_number(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "feedback", "event_time_ms": 7}\n{"type": "feedback", "event_time_ms": "7"}\n{}\n')
    assert [event.time_ms for event in read_events(path)] == [7, None, None]
