"""A producer's new format: the stream pauses, commits none of it, and goes on by itself with sound messages."""

import json

from kafka import TopicPartition

from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from stream.process import run
from stream.process.report import MostlyUnusableError
from stream.process.run import PAUSED, Pause, newest
from stream.process.worker import StreamJob
from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import SPEC, TASKS, impression, stream_config, topics

AT = 1_000_000


def send_unusable(harness: StreamHarness, count: int) -> None:
    harness.send([("impression", f"n{n}", json.dumps({"id": n, "version": 2}).encode()) for n in range(count)])


def send_sound(harness: StreamHarness, numbers: range) -> None:
    harness.send([("impression", f"i{n}", json.dumps(impression(n, AT + n)).encode()) for n in numbers])


def await_line(harness: StreamHarness, text: str) -> None:
    await_that(lambda: text in harness.log.read_text(), 60, harness.log.read_text)


def test_the_stream_pauses_and_goes_on_when_newer_messages_can_be_used(harness):
    send_sound(harness, range(20))
    send_unusable(harness, 1_500)
    process = harness.start()
    await_line(harness, "pausing: ")
    assert f"messages of {harness.topics.impressions} cannot be used, such as partition 0 offset" in (
        harness.log.read_text()
    )
    assert harness.dead_letters() == []
    send_sound(harness, range(20, 70))
    send_sound(harness, range(70, 120))
    harness.send_end()
    ids = {example["impression_id"] for example in harness.await_examples(120)}
    assert {f"i{n}" for n in range(120)} <= ids
    assert len(harness.await_dead_letters(1_500)) == 1_500
    assert process.poll() is None
    assert harness.log.read_text().count("pausing: ") == 1


def test_a_paused_stream_stops_when_it_is_asked_to_and_has_written_nothing(harness):
    send_unusable(harness, 300)
    process = harness.start()
    await_line(harness, "pausing: ")
    process.terminate()
    assert process.wait(20) == 0
    assert harness.dead_letters() == []


def test_a_first_message_that_is_unusable_is_put_aside_at_once(harness):
    send_unusable(harness, 1)
    harness.start()
    assert len(harness.await_dead_letters(1)) == 1
    assert "pausing" not in harness.log.read_text()


def test_a_pause_is_the_reason_why_the_process_is_not_ready_until_it_ends(monkeypatch):
    job = StreamJob("", stream_config(""), topics(""), TASKS, SPEC, None, None, None, "a")
    at, reasons = TopicPartition("impressions", 0), []

    def look(_pause):
        reasons.append(("nothing fits" in HEALTH.reasons(), PAUSED.labels("impressions")._value.get()))
        return {at: 7} if len(reasons) == 2 else {}

    monkeypatch.setattr(Pause, "_look", look)
    monkeypatch.setattr(run, "_FIRST_SECONDS", 0.001)
    HEALTH.round_ended("joining")
    assert Pause(job, MostlyUnusableError("impressions", {at: 0}, "nothing fits")).wait(StopSignal()) == {at: 7}
    assert reasons == [(True, 1)] * 2
    assert "nothing fits" not in HEALTH.reasons()
    assert PAUSED.labels("impressions")._value.get() == 0


def test_the_newest_messages_are_those_after_a_position_and_at_most_a_hundred(harness):
    at = TopicPartition(harness.topics.impressions, 0)
    send_unusable(harness, 250)
    ends, messages = newest(harness.kafka_servers, {at: 0})
    assert ends == {at: 250}
    assert [message.offset for message in messages[at]] == list(range(150, 250))
    assert [message.offset for message in newest(harness.kafka_servers, {at: 245})[1][at]] == list(range(245, 250))
    assert newest(harness.kafka_servers, {at: 250}) == ({at: 250}, {})
