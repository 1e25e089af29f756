"""Messages that nobody planned for: each becomes an example, a label or a dead letter, and the stream goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.kafka import connection
from tests.poison import NULL, OddName, null_header_values, with_number
from tests.stream.conftest import StreamHarness
from tests.stream.pair import feedback, impression

AT = 1_000_000


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka_home)])
def stream(request: Any, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[StreamHarness]:
    """A running stream on each kind of broker."""
    servers = kafka if request.param == "embedded" else request.getfixturevalue("apache_kafka").servers
    made = StreamHarness(servers, redis_url, topic_prefix, tmp_path / "stream.log")
    made.start()
    yield made
    made.close()


def send_impression(stream: StreamHarness, number: int, **changes: object) -> None:
    stream.send([("impression", f"i{number}", json.dumps(impression(number, AT + number, **changes)).encode())])


def examples_after(stream: StreamHarness, count: int) -> list[str]:
    """Ids of the examples, once the stream has joined a last, sound impression after all that was sent."""
    send_impression(stream, 999)
    stream.send_end()
    return [example["impression_id"] for example in stream.await_examples(count + 1)]


def test_every_codec_is_read(stream):
    for part, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        producer = connection.producer(stream.kafka_servers, compression_type=codec)
        for number in range(20 * part, 20 * part + 20):
            value = json.dumps(impression(number, AT + number)).encode()
            producer.send(stream.topics.impressions, value, b"k", partition=0)
        producer.close()
    assert set(examples_after(stream, 80)) >= {f"i{number}" for number in range(80)}


def test_a_number_beyond_reason_is_a_dead_letter(stream):
    sent = []
    for number, digits in enumerate(("1" * 309, "1e400", "-" + "9" * 5_000, "NaN", "Infinity")):
        send_impression(stream, number)
        sent.append(with_number(feedback(number, "rating", 1, AT + number + 1), digits))
        stream.send([("feedback", f"i{number}", sent[-1])])
    assert [letter.value for letter in stream.await_dead_letters(5)] == sent
    assert set(examples_after(stream, 5)) >= {f"i{number}" for number in range(5)}


def test_a_header_without_a_value_is_kept_in_the_dead_letter(stream):
    with null_header_values():
        stream.producer.send(stream.topics.impressions, b"bad", b"k", [("trace", NULL), ("x", b"y")])
        stream.producer.flush()
    (letter,) = stream.await_dead_letters(1)
    assert (letter.value, dict(letter.headers)["x"]) == (b"bad", b"y")
    assert ("graft.null.trace", b"") in letter.headers
    assert examples_after(stream, 0)


def test_a_header_name_that_is_not_utf_8_stops_nothing(stream):
    value = json.dumps(impression(1, AT + 1)).encode()
    for each in (b"bad", value):
        stream.producer.send(stream.topics.impressions, each, b"k", [(OddName("x"), b"1")])
    stream.producer.flush()
    (letter,) = stream.await_dead_letters(1)
    assert letter.value == b"bad"
    assert dict(letter.headers)["\\xff\\xfe"] == b"1"
    assert "i1" in examples_after(stream, 1)


def test_a_message_of_five_megabytes_unpacked_is_a_dead_letter_with_its_digest(stream):
    producer = connection.producer(stream.kafka_servers, compression_type="gzip")
    value = b'{"impression_id": "' + b"x" * 5_000_000 + b'"}'
    producer.send(stream.topics.impressions, value, b"k", partition=0)
    producer.close()
    (letter,) = stream.await_dead_letters(1)
    assert (letter.value, dict(letter.headers)["graft.errors.size"]) == (b"", str(len(value)).encode())
    assert examples_after(stream, 0)


def test_large_feedback_of_one_unknown_impression_is_bounded(stream):
    for number in range(5):
        raw = json.dumps(feedback(7, "like", 1, AT + number)).encode()
        raw = raw[:-1] + b" " * 900_000 + raw[-1:]
        stream.send([("feedback", "i7", raw)])
    send_impression(stream, 8)
    assert "i8" in examples_after(stream, 1)
    assert len(stream.await_dead_letters(5)) == 5
