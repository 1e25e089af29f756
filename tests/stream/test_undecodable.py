"""What cannot be decoded ends a reader with one line; the stream goes past it when an operator says so."""

import json
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.consumer import fetcher
from kafka.record import MemoryRecords

from runtime.errors import InvalidInputError
from stream import connection
from stream.dead_letter_topics import PutBack, Selection, read_dead_letters, replay_dead_letters
from stream.examples import ExampleReader
from stream.requests import TeacherRequestReader
from stream.skips import Skip, find_skip, skip
from stream.undecodable import Undecodable, UndecodableError
from tests.apache_kafka import ApacheKafka
from tests.stream.conftest import StreamHarness
from tests.stream.corruption import send_undecodable
from tests.stream.pair import impression

AT = 1_000_000


def send_impressions(harness: StreamHarness, *numbers: int) -> None:
    harness.send([("impression", f"i{n}", json.dumps(impression(n, AT + n)).encode()) for n in numbers])


def read_on(requests: TeacherRequestReader) -> None:
    """Until it fails: its first polls find the group's partitions and positions."""
    for _ in range(50):
        requests.poll(0.5, 100)


@pytest.fixture
def broken(harness: StreamHarness) -> StreamHarness:
    """Impressions 0 to 2, then four records that cannot be decoded, then impressions 3 and 4; no process yet."""
    send_impressions(harness, 0, 1, 2)
    assert send_undecodable(harness.kafka_servers, harness.topics.impressions, 4) == [3, 4, 5, 6]
    send_impressions(harness, 3, 4)
    return harness


def place(harness: StreamHarness, first: int = 3, last: int = 6) -> Skip:
    return Skip(harness.topics.impressions, 0, first, last)


def ask_to_skip(harness: StreamHarness, wanted: Skip, *, dry_run: bool = False) -> Undecodable:
    return skip(harness.kafka_servers, harness.topics, wanted, dry_run=dry_run)


def test_the_stream_ends_with_one_line_that_names_the_place_and_the_command(broken):
    process = broken.start()
    assert process.wait(60) == 1
    last_line = broken.log.read_text().splitlines()[-1]
    place, _, advice = last_line.partition(" (BadGzipFile: Not a gzipped file ")
    assert place == f"UndecodableError: {broken.topics.impressions}-0: offsets 3 to 6 cannot be decoded"
    assert advice.endswith("; 'graft stream skip impressions 0 3 6' lets the stream go on after it")


def test_after_a_skip_the_stream_goes_on_and_the_dead_letters_say_what_was_skipped(broken):
    assert broken.start().wait(60) == 1
    assert ask_to_skip(broken, place(broken))[1:4] == (0, 3, 6)
    process = broken.start()
    broken.send_end()
    ids = {example["impression_id"] for example in broken.await_examples(5)}
    assert {f"i{n}" for n in range(5)} <= ids
    assert process.poll() is None
    assert "skipped up to offset 6, as was asked for" in broken.log.read_text()
    (letter,) = read_dead_letters(broken.kafka_servers, broken.topics, Selection(code="skipped"))
    assert (letter.stage, letter.message.topic, letter.message.offset) == ("poll", broken.topics.impressions, 3)
    assert letter.message.value == b'{"first": 3, "last": 6}'
    assert letter.text.startswith("offsets 3 to 6 are skipped by 'graft stream skip': BadGzipFile")
    put = replay_dead_letters(broken.kafka_servers, broken.topics, Selection(), dry_run=False, advance=lambda _n: None)
    assert put == PutBack(left_skipped=1)


def test_a_skip_that_ends_within_what_cannot_be_decoded_is_not_enough(broken):
    ask_to_skip(broken, place(broken, 3, 4))
    assert broken.start().wait(60) == 1
    assert "offsets 5 to 6 cannot be decoded" in broken.log.read_text().splitlines()[-1]


def test_a_dry_run_writes_nothing(broken):
    found = ask_to_skip(broken, place(broken), dry_run=True)
    assert (found.first, found.last) == (3, 6)
    assert find_skip(broken.kafka_servers, broken.topics, found) is None


@pytest.mark.parametrize(
    ("first", "last", "fault"),
    [
        (2, 6, "offset 2 can be decoded, so nothing is to be skipped"),
        (3, 9, "must lie within the offsets 0 to 8 that are on the broker, FIRST not after LAST, got 3 and 9"),
        (6, 3, "FIRST not after LAST, got 6 and 3"),
    ],
)
def test_a_skip_of_what_is_sound_or_not_there_is_refused(broken, first, last, fault):
    with pytest.raises(InvalidInputError, match=fault):
        ask_to_skip(broken, place(broken, first, last))


def test_a_skip_in_a_partition_that_is_not_there_is_refused(broken):
    with pytest.raises(InvalidInputError, match="-7: there is no such partition"):
        ask_to_skip(broken, place(broken)._replace(partition=7))


def test_every_further_poll_fails_alike_until_the_consumer_is_moved(broken):
    at = TopicPartition(broken.topics.impressions, 0)
    with closing(connection.consumer(broken.kafka_servers)) as consumer:
        consumer.assign([at])
        consumer.seek(at, 0)
        assert [record.offset for record in consumer.poll(timeout_ms=5_000)[at]] == [0, 1, 2]
        for _ in range(3):
            with pytest.raises(UndecodableError, match="offsets 3 to 6 cannot be decoded"):
                consumer.poll(timeout_ms=1_000)
        consumer.seek(at, 7)
        assert [record.offset for record in consumer.poll(timeout_ms=5_000)[at]] == [7, 8]


def test_the_readers_of_teacher_and_learner_fail_with_the_place(harness):
    send_undecodable(harness.kafka_servers, harness.topics.examples, 2)
    send_undecodable(harness.kafka_servers, harness.topics.teacher_requests, 3)
    with (
        closing(ExampleReader(harness.kafka_servers, harness.topics, {})) as examples,
        pytest.raises(UndecodableError, match=f"{harness.topics.examples}-0: offsets 0 to 1 cannot be decoded"),
    ):
        examples.poll(10)
    with (
        closing(TeacherRequestReader(harness.kafka_servers, harness.topics, "a")) as requests,
        pytest.raises(UndecodableError, match=r"teacher-requests-0: offsets 0 to 2 .*; restore the partition"),
    ):
        read_on(requests)


def test_a_fetch_without_a_whole_batch_fails_with_its_offset(harness, monkeypatch):
    send_impressions(harness, 0)
    monkeypatch.setattr(fetcher, "MemoryRecords", lambda data: MemoryRecords(data[:-1]))
    at = TopicPartition(harness.topics.impressions, 0)
    with closing(connection.consumer(harness.kafka_servers)) as consumer:
        consumer.assign([at])
        consumer.seek(at, 0)
        for _ in range(2):
            with pytest.raises(
                UndecodableError, match=r"-0: offset 0 cannot be decoded \(KafkaError: Failed to make progress"
            ):
                consumer.poll(timeout_ms=5_000)


@pytest.mark.kafka_home
def test_on_apache_kafka_a_damaged_file_ends_the_stream_and_a_skip_helps(kafka_home, redis_url, topic_prefix, tmp_path):
    with ApacheKafka(kafka_home) as broker:
        harness = StreamHarness(broker.servers, redis_url, topic_prefix, tmp_path / "stream.log")
        try:
            send_impressions(harness, 0)
            send_impressions(harness, 1)
            (file,) = (broker.folder / "data").rglob(f"{harness.topics.impressions}-0/*0.log")
            damaged = file.read_bytes()
            file.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 0x7F]))
            assert harness.start().wait(60) == 1
            last_line = harness.log.read_text().splitlines()[-1]
            assert "CorruptRecordError: Record batch for partition" in last_line
            assert "'graft stream skip impressions 0 1 1'" in last_line
            ask_to_skip(harness, place(harness, 1, 1))
            harness.start()
            send_impressions(harness, 2)
            harness.send_end()
            assert [e["impression_id"] for e in harness.await_examples(2)][:2] == ["i0", "i2"]
        finally:
            harness.close()
