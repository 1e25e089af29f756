"""Dead letters are read, and put back exactly once, on a real broker."""

import json
import threading
from typing import Any

import pytest
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from runtime.errors import GraftError, ServiceUnavailableError
from stream.kafka import connection, dead_letter_topics
from stream.kafka.dead_letter_topics import PutBack, Selection, dead_letters, replay_dead_letters
from stream.kafka.dead_letters import DeadLetter
from stream.kafka.groups import group_id
from stream.messages import Message
from tests.stream.conftest import StreamHarness
from tests.stream.pair import feedback, impression, topics

ALL = Selection()


def letters(harness: StreamHarness, selection: Selection = ALL) -> list[Any]:
    with dead_letters(harness.kafka_servers, harness.topics) as reader:
        return list(reader.selected(selection))


def put_back(harness: StreamHarness, selection: Selection = ALL, *, dry_run: bool = False) -> PutBack:
    return replay_dead_letters(
        harness.kafka_servers, harness.topics, selection, dry_run=dry_run, advance=lambda _count: None
    )


@pytest.fixture
def with_letters(harness: StreamHarness) -> StreamHarness:
    """A stream that has put aside an unreadable impression and feedback without an impression."""
    harness.start()
    harness.producer.send(harness.topics.impressions, b"not json", b"k", [("trace", b"\x01")])
    harness.send([("feedback", "i1", json.dumps(feedback(1, "like", 1, 1_000)).encode())])
    harness.send_end()
    harness.await_dead_letters(2)
    return harness


def test_letters_are_read_with_their_reason_and_message(with_letters):
    invalid, alone = letters(with_letters)
    assert (invalid.code, invalid.stage, invalid.attempt) == ("invalid", "validate", 1)
    assert (invalid.message.topic, invalid.message.value) == (with_letters.topics.impressions, b"not json")
    assert invalid.message.headers == (("trace", b"\x01"),)
    assert (alone.code, alone.stage) == ("no_impression", "join")
    assert letters(with_letters, Selection(code="no_impression")) == [alone]
    assert letters(with_letters, Selection(topic=with_letters.topics.impressions)) == [invalid]
    assert letters(with_letters, Selection(since_ms=invalid.written_ms + 3_600_000)) == []
    assert letters(with_letters, Selection(until_ms=invalid.written_ms)) == []


def test_letters_of_topics_that_nobody_has_made_are_an_error_and_not_none(kafka, topic_prefix, monkeypatch):
    monkeypatch.setattr("stream.kafka.topics._HEARD_OF_SECONDS", 0.5)
    made = "'graft stream run' makes the topics of a project"
    with pytest.raises(ServiceUnavailableError, match=made), dead_letters(kafka, topics(topic_prefix)) as reader:
        list(reader.selected(ALL))


def test_a_dry_run_counts_and_changes_nothing(with_letters):
    assert put_back(with_letters, dry_run=True) == PutBack(replayed=2)
    assert len(letters(with_letters)) == 2


def test_a_letter_is_put_back_once_and_stays_after_three_attempts(with_letters):
    only = Selection(code="invalid")
    for attempt in (2, 3):
        assert put_back(with_letters, only) == PutBack(replayed=1)
        (again,) = with_letters.await_records(lambda: letters(with_letters, only), 1)
        assert (again.attempt, again.message.value) == (attempt, b"not json")
    assert put_back(with_letters, only) == PutBack(left_failed=1)
    assert [letter.attempt for letter in letters(with_letters, only)] == [3]


def test_a_letter_that_can_be_used_now_becomes_an_example(with_letters):
    value = json.dumps(impression(7, 2_100_000_000)).encode()
    was = Message(with_letters.topics.impressions, 0, 99, b"i7", value, (("trace", b"\x02"),))
    key, value, headers = DeadLetter(was, "invalid", "its context was not declared then", "validate").record()
    with_letters.producer.send(with_letters.topics.dead_letters(was.topic), value, key, headers, 0)
    with_letters.producer.flush()
    assert put_back(with_letters, Selection(code="invalid")).replayed == 2
    with_letters.send_end(2_200_000_000)
    assert "i7" in [example["impression_id"] for example in with_letters.await_examples(2)]


def test_a_replay_that_is_fenced_says_what_it_has_done(with_letters, monkeypatch):
    monkeypatch.setattr(dead_letter_topics, "_BATCH", 1)
    servers, topics = with_letters.kafka_servers, with_letters.topics

    def a_later_one_begins(_count: int) -> None:
        later = connection.producer(servers, group_id(topics, "graft-dlq-replay"))
        later.init_transactions()
        later.close(timeout=5)

    with pytest.raises(GraftError, match=r"another 'graft dlq replay'.* with 1 messages put back"):
        replay_dead_letters(servers, topics, ALL, dry_run=False, advance=a_later_one_begins)


@pytest.mark.parametrize(
    "error",
    [
        ProducerFencedError(),
        InvalidProducerEpochError(),
        KafkaError("Cannot perform send because a previous request has failed.", ProducerFencedError()),
        KafkaError("Cannot execute transactional method because we are in an error state: ProducerFencedError()"),
    ],
)
def test_fencing_is_known_in_each_form_that_the_client_gives_it(error):
    assert connection.is_fenced(error)
    assert not connection.is_fenced(KafkaError("Cannot perform send"))


def test_a_mark_in_a_transaction_that_is_still_open_is_waited_for(with_letters):
    only = Selection(code="invalid")
    (letter,) = letters(with_letters, only)
    replay = connection.producer(with_letters.kafka_servers, f"{with_letters.prefix}open")
    replay.init_transactions()
    replay.begin_transaction()
    topic = with_letters.topics.dead_letters(letter.message.topic)
    replay.send(topic, b"", None, [("graft.replayed", str(letter.offset).encode())], letter.partition)
    replay.flush()
    found: list[list[Any]] = []
    reading = threading.Thread(target=lambda: found.append(letters(with_letters, only)))
    reading.start()
    reading.join(1)
    assert reading.is_alive(), "it did not wait"
    replay.commit_transaction()
    reading.join(60)
    replay.close(timeout=5)
    assert found == [[]]


def test_two_replays_at_once_put_each_letter_back_once(with_letters):
    """The later one fences the earlier one, which then fails or has nothing left to do."""
    before = with_letters.end(with_letters.topics.impressions)
    outcomes: list[object] = []

    def replay() -> None:
        try:
            outcomes.append(put_back(with_letters, Selection(code="invalid")))
        except GraftError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=replay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(outcome.replayed for outcome in outcomes if isinstance(outcome, PutBack)) == 1
    sent = with_letters.end(with_letters.topics.impressions) - before
    assert sent == 2  # the message, and the marker of its transaction
