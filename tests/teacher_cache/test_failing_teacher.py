"""A teacher that fails now and then: the cache ends as an undisturbed run's, and nothing is committed before it."""

import logging
from contextlib import closing
from itertools import cycle

import numpy as np
import pytest
from prometheus_client import REGISTRY

from runtime.telemetry import StopSignal
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache

_ERRORS = (TimeoutError("timed out"), ConnectionResetError("reset"), MemoryError(), RuntimeError("Failed to allocate"))


class _Session:
    """Every fifth call of onnxruntime fails; the errors take turns."""

    def __init__(self, session):
        self._session, self._errors = session, cycle(_ERRORS)
        self.calls = 0

    def run(self, outputs, feeds):
        self.calls += 1
        if self.calls % 5 == 0:
            raise next(self._errors)
        return self._session.run(outputs, feeds)


class _Requests:
    """Waiting requests in memory, which come again after a restart where they were not committed."""

    def __init__(self, requests):
        self.waiting, self.polled, self.committed, self.aside = list(requests), [], [], []
        self.stop = StopSignal()

    def poll(self, _timeout_seconds, max_records):
        batch = self.waiting[len(self.polled) :][:max_records]
        self.polled += batch
        if not batch:
            self.stop.set()
        return batch

    def set_aside(self, refused):
        self.aside += [row.request.impression_id for row in refused]

    def commit(self):
        self.committed = list(self.polled)

    def lag(self):
        return 0

    waited_seconds = 0.0
    traceparents = ()

    def restart(self):
        self.polled, self.stop = list(self.committed), StopSignal()


@pytest.fixture
def fill(scorer, config, redis_url, monkeypatch):
    """Scores requests to the end, in batches of four, into a generation; what it left there."""
    monkeypatch.setattr("teacher_cache.batch_scorer.BATCH_ROWS", 4)

    def run(requests, generation):
        with closing(LogitCache(redis_url, generation, ("finish", "rating"), 100)) as cache:
            run_batch_scorer(requests, scorer, cache, config, requests.stop)
            return cache.get(cache.keys_of(requests.waiting)).logit_BT

    return run


def test_a_teacher_that_fails_one_call_in_five_and_refuses_rows_fills_the_cache_as_an_undisturbed_one(
    fill, teacher, request_of, caplog
):
    caplog.set_level(logging.INFO, "runtime.outage")
    bad = {5, 6, 22}
    rows = [
        request_of(n, features=[20, "", [3e38, 3e38, 0.0], 5.0, n]) if n in bad else request_of(n) for n in range(40)
    ]
    undisturbed = _Requests(rows)
    expected = fill(undisturbed, "p:undisturbed")
    teacher._model = session = _Session(teacher._model)
    before = REGISTRY.get_sample_value("graft_teacher_refused_rows_total")
    failing = _Requests(rows)
    found = fill(failing, "p:failing")
    assert session.calls > 10  # batches
    assert found.tobytes() == expected.tobytes()
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == sorted(bad)
    assert failing.aside == undisturbed.aside == [f"imp-{n}" for n in sorted(bad)]
    assert failing.committed == rows
    assert (REGISTRY.get_sample_value("graft_teacher_refused_rows_total") or 0) - (before or 0) >= len(bad)
    assert REGISTRY.get_sample_value("graft_service_away", {"service": "teacher"}) == 0
    assert any("the teacher's call failed (TimeoutError): timed out" in line for line in caplog.messages)


def test_a_stop_while_the_teacher_is_away_commits_nothing_and_a_restart_scores_the_rest(
    fill, teacher, request_of, monkeypatch
):
    rows = [request_of(n) for n in range(12)]
    requests, whole = _Requests(rows), teacher._model

    class Away(_Session):
        def run(self, outputs, feeds):
            if len(requests.polled) > 8:
                requests.stop.set()
                raise ConnectionRefusedError("away")
            return self._session.run(outputs, feeds)

    teacher._model = Away(whole)
    found = fill(requests, "p:g1")
    assert np.isfinite(found[:, 0]).tolist() == [True] * 8 + [False] * 4
    assert requests.committed == rows[:8]
    assert requests.aside == []
    teacher._model = whole
    requests.restart()
    found = fill(requests, "p:g1")
    assert found[:, 0].tolist() == [18.0 + n for n in range(12)]
    assert requests.committed == rows
