"""What cannot be decoded ends a reader with one line; the stream goes past it when an operator says so."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer import fetcher
from kafka.record import MemoryRecords

from lab.embedded.servers import ApacheKafka
from runtime.errors import InvalidInputError
from runtime.telemetry import StopSignal
from stream.events import Example, TeacherRequest
from stream.kafka import connection
from stream.kafka.dead_letter_topics import PutBack, Selection, dead_letters, replay_dead_letters
from stream.kafka.decoding import Skip, find_skip, skip
from stream.kafka.errors import Undecodable, UndecodableError
from stream.log.archive import run_archive
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleReader
from stream.log.requests import PastRequests, TeacherRequestReader, offsets_between
from tests.stream.conftest import StreamHarness, await_that
from tests.stream.corruption import send_undecodable
from tests.stream.pair import impression

AT = 1_000_000


def send_impressions(harness: StreamHarness, *numbers: int) -> None:
    harness.send([("impression", f"i{n}", json.dumps(impression(n, AT + n)).encode()) for n in numbers])


@pytest.fixture
def _takes_anything(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--apache"):
        pytest.skip("Apache Kafka takes nothing that cannot be decoded; below its files are damaged")


@pytest.fixture
def broken(_takes_anything: None, harness: StreamHarness) -> StreamHarness:
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
    assert advice.endswith("; 'graft stream skip impressions 0 3 6' lets its readers go on after it")


def test_after_a_skip_the_stream_goes_on_and_the_dead_letters_say_what_was_skipped(broken):
    assert broken.start().wait(60) == 1
    assert ask_to_skip(broken, place(broken))[1:4] == (0, 3, 6)
    process = broken.start()
    broken.send_end()
    ids = {example["impression_id"] for example in broken.await_examples(5)}
    assert {f"i{n}" for n in range(5)} <= ids
    assert process.poll() is None
    assert "skipped up to offset 6, as was asked for" in broken.log.read_text()
    with dead_letters(broken.kafka_servers, broken.topics) as reader:
        (letter,) = reader.selected(Selection(code="skipped"))
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


def send_records(harness: StreamHarness, topic: str, *values: bytes) -> None:
    for value in values:
        harness.producer.send(topic, value, b"k", partition=0)
    harness.producer.flush()


def one(model: type[Example] | type[TeacherRequest], number: int) -> bytes:
    fields = {"context": {}, "spec_id": "s", "features": [1.0], "labels": {"like": 1.0}}
    known = {name: value for name, value in fields.items() if name in model.model_fields}
    whole = {"impression_id": f"i{number}", "user_id": 1, "item_id": "a", "event_time_ms": number, **known}
    return model.model_validate(whole).model_dump_json().encode()


def ids_of(read: Callable[[], Iterable[Any]], count: int) -> list[str]:
    """Until there are so many, or the reading fails: a first poll finds partitions and positions alone."""
    found: list[str] = []
    await_that(lambda: found.extend(one.impression_id for one in read()) or len(found) >= count, 30, lambda: str(found))
    return found


@contextmanager
def example_ids(harness: StreamHarness) -> Iterator[Callable[[int], list[str]]]:
    """What the learner and the archive read."""
    with closing(ExampleReader(harness.kafka_servers, harness.topics, {})) as reader:
        yield lambda count: ids_of(lambda: [record.example for record in reader.poll(0.5)], count)


@contextmanager
def request_ids(harness: StreamHarness) -> Iterator[Callable[[int], list[str]]]:
    """What the teacher reads."""
    with closing(TeacherRequestReader(harness.kafka_servers, harness.topics, "a")) as reader:
        yield lambda count: ids_of(lambda: reader.poll(0.5, 100), count)


@contextmanager
def backfilled_ids(harness: StreamHarness) -> Iterator[Callable[[int], list[str]]]:
    """What a backfill reads."""
    of = harness.kafka_servers, harness.topics

    def read() -> list[TeacherRequest]:
        with closing(PastRequests(*of, *offsets_between(*of, 0, None))) as requests:
            return [request for _, _, request in requests]

    yield lambda count: ids_of(read, count)


READERS = [(Example, example_ids), (TeacherRequest, request_ids), (TeacherRequest, backfilled_ids)]


@pytest.mark.usefixtures("_takes_anything")
@pytest.mark.parametrize(("model", "reading"), READERS)
def test_who_reads_after_the_stream_fails_with_the_place_and_goes_on_after_a_skip(harness, model, reading):
    topics = harness.topics
    topic = topics.examples if model is Example else topics.teacher_requests
    name = topic.removeprefix(topics.prefix)
    send_records(harness, topic, one(model, 0))
    send_undecodable(harness.kafka_servers, topic, 2)
    send_records(harness, topic, one(model, 3), b"not json", one(model, 5), b"null", one(model, 7))
    last = f"not a {model.__name__}: value: "
    for first, end, fault in ((1, 2, "BadGzipFile"), (4, 4, last), (6, 6, last)):
        offsets = f"offset {first}" if first == end else f"offsets {first} to {end}"
        says = rf"{topic}-0: {offsets} cannot be decoded \({fault}.*'graft stream skip {name} 0 {first} {end}' lets"
        with reading(harness) as ids, pytest.raises(UndecodableError, match=says):
            ids(4)
        assert ask_to_skip(harness, Skip(topic, 0, first, end)).fault.startswith(fault)
    with reading(harness) as ids:
        assert ids(4) == ["i0", "i3", "i5", "i7"]
    with dead_letters(harness.kafka_servers, topics) as reader:
        letters = list(reader.selected(Selection(topic=topic)))
    assert [json.loads(letter.message.value or b"") for letter in letters] == [
        {"first": 1, "last": 2},
        {"first": 4, "last": 4},
        {"first": 6, "last": 6},
    ]
    with pytest.raises(InvalidInputError, match="offset 5 can be decoded, so nothing is to be skipped"):
        ask_to_skip(harness, Skip(topic, 0, 5, 5))


def test_a_skip_leaves_no_gap_in_the_example_log(harness, tmp_path):
    topic = harness.topics.examples
    send_records(harness, topic, one(Example, 0), b"not json", one(Example, 2))

    def archive() -> None:
        run_archive(tmp_path, harness.kafka_servers, harness.topics, stop, every_examples=1)

    stop = StopSignal()
    with pytest.raises(UndecodableError, match="'graft stream skip examples 0 1 1' lets its readers go on"):
        archive()
    ask_to_skip(harness, Skip(topic, 0, 1, 1))
    log = ExampleLog(tmp_path)
    thread = threading.Thread(target=archive)
    thread.start()
    await_that(lambda: log.offsets_end() == {0: 3}, 30, lambda: str(log.offsets_end()))
    stop.set()
    thread.join()
    assert [record.offset for records in log.read({}) for record in records] == [0, 2]


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


@pytest.fixture
def on_apache(apache_kafka: ApacheKafka, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[StreamHarness]:
    made = StreamHarness(apache_kafka.servers, redis_url, topic_prefix, tmp_path / "stream.log")
    yield made
    made.close()


def damage_the_last_batch(apache: ApacheKafka, topic: str) -> None:
    (file,) = (apache.folder / "data").rglob(f"{topic}-0/*0.log")
    damaged = file.read_bytes()
    file.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 0x7F]))


@pytest.mark.kafka_home
def test_on_apache_kafka_a_damaged_file_ends_the_stream_and_a_skip_helps(apache_kafka, on_apache):
    send_impressions(on_apache, 0)
    send_impressions(on_apache, 1)
    damage_the_last_batch(apache_kafka, on_apache.topics.impressions)
    assert on_apache.start().wait(60) == 1
    last_line = on_apache.log.read_text().splitlines()[-1]
    assert "CorruptRecordError: Record batch for partition" in last_line
    assert "'graft stream skip impressions 0 1 1'" in last_line
    ask_to_skip(on_apache, place(on_apache, 1, 1))
    on_apache.start()
    send_impressions(on_apache, 2)
    on_apache.send_end()
    assert [e["impression_id"] for e in on_apache.await_examples(2)][:2] == ["i0", "i2"]


@pytest.mark.kafka_home
@pytest.mark.parametrize(("model", "reading"), READERS)
def test_on_apache_kafka_a_damaged_file_ends_who_reads_after_the_stream_and_a_skip_helps(
    apache_kafka, on_apache, model, reading
):
    topics = on_apache.topics
    topic = topics.examples if model is Example else topics.teacher_requests
    send_records(on_apache, topic, one(model, 0))
    send_records(on_apache, topic, one(model, 1))
    damage_the_last_batch(apache_kafka, topic)
    send_records(on_apache, topic, b"not json", one(model, 3))
    for offset, fault in ((1, "CorruptRecordError"), (2, f"not a {model.__name__}")):
        name = topic.removeprefix(topics.prefix)
        says = rf"{topic}-0: offset {offset} .*{fault}.*'graft stream skip {name} 0 {offset} {offset}'"
        with reading(on_apache) as ids, pytest.raises(UndecodableError, match=says):
            ids(2)
        ask_to_skip(on_apache, Skip(topic, 0, offset, offset))
    with reading(on_apache) as ids:
        assert ids(2) == ["i0", "i3"]
