"""What the stream process does while Kafka is away, with a worker that stands in for the real one."""

import logging

import pytest
from kafka.errors import KafkaTimeoutError

from runtime.telemetry import StopSignal
from stream.config import Topics
from stream.process import run as stream_run
from stream.process.state_log import StateId
from stream.process.worker import StreamJob


class _Worker:
    """Fails in its first step, as often as `failures` says in all; then works until its second step asks for a stop."""

    failures = 0
    started = 0

    def __init__(self, _job: StreamJob, stop: StopSignal, _excused: object) -> None:
        type(self).started += 1
        self._stop = stop
        self._steps = 0

    def step(self) -> bool:
        if self.started <= self.failures:
            raise KafkaTimeoutError("no answer")
        self._steps += 1
        if self._steps == 2:
            self._stop.set()
        return True

    def is_replaced(self) -> bool:
        return False

    def commit(self) -> None: ...

    def close(self) -> None: ...


def test_kafkas_outage_is_one_warning_however_often_the_worker_starts_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtime.outage")
    monkeypatch.setattr(stream_run, "StreamWorker", _Worker)
    monkeypatch.setattr(stream_run, "ensure_topics", lambda *_: None)
    monkeypatch.setattr(stream_run, "state_id", lambda *_: StateId("join-state", is_new=True))
    monkeypatch.setattr(stream_run, "_STEADY_SECONDS", 0.0)
    monkeypatch.setattr(_Worker, "failures", 3)
    stream_run.run_stream("localhost:9092", None, Topics(), *[None] * 5, "0", StopSignal())
    assert _Worker.started == 4
    assert [record.message.partition(" after ")[0] for record in caplog.records] == [
        "KafkaTimeoutError: no answer; starting again from what is committed, nothing is lost",
        "kafka is back",
    ]
