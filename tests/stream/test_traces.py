"""The trace of a message, from the replay that sends it to the teacher requests and the dead letters."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.aggregates import Aggregates
from features.online.reader import OnlineReader
from runtime.telemetry import StopSignal
from runtime.tracing import TRACING, traceparent_in
from stream.kafka.dead_letters import DeadLetter, stored_letter
from stream.log.requests import TeacherRequestReader
from stream.messages import Message
from stream.process.run import run_stream
from stream.replay.replay import replay
from tests.stream.conftest import await_that
from tests.stream.pair import AGGREGATES, SPEC, TASKS, impression, stream_config
from tests.stream.process import HashPusher


@pytest.fixture
def joining(harness):
    """A stream in a thread of this process, whose traces are on."""
    stop = StopSignal()
    parts = (SPEC, OnlineReader(SPEC, harness.redis_url), lambda: Aggregates(AGGREGATES))
    pusher = HashPusher(harness.redis_url, harness.prefix)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(
            run_stream,
            harness.kafka_servers,
            stream_config(harness.prefix),
            harness.topics,
            TASKS,
            *parts,
            pusher,
            "a",
            stop,
        )
        yield harness
        stop.set()
        run.result(timeout=20)


def of_trace(traceparents):
    return {traceparent.split("-")[1] for traceparent in traceparents}


@pytest.mark.parametrize("is_on", [True, False])
def test_what_a_replay_sends_is_one_trace_up_to_the_teacher_request(joining, request, tmp_path, is_on):
    spans = request.getfixturevalue("spans") if is_on else list
    assert TRACING.is_on is is_on
    lines = [json.dumps({"type": "impression", **impression(n, n)}) for n in range(3)]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, '{"no": "event"}']) + "\n")
    replay(tmp_path / "events.jsonl", joining.kafka_servers, joining.topics, max_lag=None, progress=lambda *_: None)
    joining.send_end()
    requests = TeacherRequestReader(joining.kafka_servers, joining.topics, "a")
    asked = []
    await_that(lambda: asked.extend(requests.poll(0.2, 100)) or len(asked) >= 4, 60, lambda: str(asked))
    (letter,) = joining.await_dead_letters(1)
    if is_on:
        (trace,) = of_trace(filter(None, requests.traceparents))
        assert traceparent_in(letter.headers).split("-")[1] == trace
        ended = spans()
        (sending,) = [span for span in ended if span.name == "send events"]
        assert (f"{sending.context.trace_id:032x}", sending.kind.name) == (trace, "PRODUCER")
        assert sending.attributes["messaging.batch.message_count"] == 4
        joins = [link.context.trace_id for span in ended if span.name == "join events" for link in span.links]
        assert set(joins) == {sending.context.trace_id}
    else:
        assert set(requests.traceparents) == {None}
        assert traceparent_in(letter.headers) is None
    requests.close()


def test_a_dead_letter_keeps_the_headers_of_a_trace_and_gives_them_back():
    trace = (("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), ("tracestate", b"vendor=1"))
    message = Message("impressions", 0, 7, b"k", b"v", trace)
    key, value, headers = DeadLetter(message, "invalid", "why").record()
    assert set(trace) <= set(headers)
    again = stored_letter("impressions.dlq", 0, 1, 0, Message("impressions.dlq", 0, 1, key, value, tuple(headers)))
    assert again.message.headers == trace
