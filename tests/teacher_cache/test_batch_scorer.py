import logging
import threading
import time

import numpy as np
import pytest
from prometheus_client import REGISTRY

from lab.embedded import EmbeddedRedis
from runtime.errors import ConfigurationError, ServiceUnavailableError
from runtime.telemetry import StopSignal
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache
from tests.rows import keys

TASKS = ("finish", "rating")


class _Requests:
    """Waiting requests in memory; asks for the stop when they are drained, and looks into the cache at each commit."""

    def __init__(self, requests, cache, stop):
        self.waiting = list(requests)
        self._cache = cache
        self._stop = stop
        self._polled = []
        self.in_cache_at_commit = []
        self.aside = []
        self.given = set()

    def set_aside(self, refused):
        self.aside += [(row.request.impression_id, row.reason) for row in refused]

    def poll(self, _timeout_seconds, max_records):
        batch, self.waiting = self.waiting[:max_records], self.waiting[max_records:]
        self._polled += batch
        if not batch:
            self._stop.set()
        return batch

    def commit(self):
        found = self._cache.get(self._cache.keys_of(self._polled))
        self.in_cache_at_commit.append(np.isfinite(found.logit_BT).all(axis=1).tolist())

    def lag(self):
        return len(self.waiting)

    def newest(self, max_records):
        """None of them twice."""
        found = [r for r in self.waiting[-max_records:] if r.impression_id not in self.given]
        self.given |= {r.impression_id for r in found}
        return found

    waited_seconds = 7.5
    traceparents = ()


@pytest.fixture
def cache(redis_url):
    cache = LogitCache(redis_url, "p:g1", TASKS, 100)
    yield cache
    cache.close()


@pytest.fixture
def run(scorer, config, monkeypatch):
    """Runs the batch scorer, with batches of four rows, until its stop signal is set."""
    monkeypatch.setattr("teacher_cache.batch_scorer.BATCH_ROWS", 4)

    def run_until_stopped(reader, cache, stop, profiles=None):
        run_batch_scorer(reader, scorer, cache, config, stop, profiles)

    return run_until_stopped


def _sample(name):
    return REGISTRY.get_sample_value(name) or 0.0


def test_each_request_gets_the_logits_computed_by_hand(run, cache, request_of):
    stop = StopSignal()
    run(_Requests([request_of(n, user_id=n % 2) for n in range(10)], cache, stop), cache, stop)
    found = cache.get(keys(cache, [n % 2 for n in range(10)], list(range(10))))
    assert found.logit_BT.tolist() == [[18.0 + n, 4.5] for n in range(10)]
    assert (found.age_seconds_B <= 5).all()


def test_a_batch_is_committed_only_when_its_logits_are_in_redis(run, cache, request_of):
    stop = StopSignal()
    reader = _Requests([request_of(n) for n in range(10)], cache, stop)
    run(reader, cache, stop)
    assert reader.in_cache_at_commit == [[True] * 4, [True] * 8, [True] * 10]


def test_a_batch_is_one_span_with_links_to_the_traces_of_its_requests(run, cache, request_of, spans):
    stop = StopSignal()
    reader = _Requests([request_of(n) for n in range(6)], cache, stop)
    reader.traceparents = (f"00-{'a' * 32}-{'b' * 16}-01", None)
    run(reader, cache, stop)
    first, second = spans()
    assert (first.name, first.kind.name, first.attributes["messaging.batch.message_count"]) == (
        "score requests",
        "CONSUMER",
        4,
    )
    assert [f"{link.context.trace_id:032x}" for link in first.links] == ["a" * 32]
    assert second.attributes["messaging.batch.message_count"] == 2


def test_the_metrics_tell_rows_lag_and_defaulted_inputs(run, cache, request_of):
    before = _sample("graft_teacher_scored_rows_total"), _sample("graft_teacher_pass_seconds_count")
    stop = StopSignal()
    run(_Requests([request_of(n) for n in range(10)], cache, stop), cache, stop)
    assert _sample("graft_teacher_scored_rows_total") - before[0] == 10
    assert _sample("graft_teacher_pass_seconds_count") - before[1] == 1
    assert _sample("graft_teacher_lag_records") == 0
    assert _sample("graft_teacher_defaulted_input_share") == 0.25


def test_a_request_of_another_feature_spec_names_both(run, cache, request_of, spec):
    stop = StopSignal()
    reader = _Requests([request_of(1), request_of(2, spec_id="0123456789abcdef")], cache, stop)
    with pytest.raises(ConfigurationError) as error:
        run(reader, cache, stop)
    assert str(error.value) == (
        "teacher request of impression imp-2 was written with feature spec 0123456789abcdef, this process reads spec "
        f"{spec.spec_id}; run 'graft features apply' and restart this process, or drain the topic with the older "
        "spec first"
    )
    assert reader.in_cache_at_commit == []


def test_a_row_without_finite_logits_is_left_out_and_counted(save_onnx, run, cache, request_of, caplog):
    before = _sample("graft_teacher_refused_rows_total")
    stop = StopSignal()
    broken = request_of(2, features=[20, "", [3e38, 3e38, 0.0], 5.0, 2])
    reader = _Requests([request_of(1), broken, request_of(3)], cache, stop)
    run(reader, cache, stop)
    assert cache.get(keys(cache, [1, 1, 1], [1, 2, 3])).logit_BT[:, 0].tolist() == pytest.approx(
        [19, float("nan"), 21], nan_ok=True
    )
    assert reader.in_cache_at_commit == [[True, False, True]]
    assert reader.aside == [("imp-2", "teacher task finish: the output is inf, must be finite")]
    assert _sample("graft_teacher_refused_rows_total") - before == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line == (
        "teacher task finish: output of row 1 is inf, must be finite (1 of 3 rows are not); left out, "
        "first impression_id=imp-2"
    )


def test_requests_wait_while_redis_is_away_with_one_log_line(run, request_of, caplog):
    caplog.set_level(logging.INFO, "runtime.outage")
    stop = StopSignal()
    with EmbeddedRedis() as server:
        cache = LogitCache(server.url, "p:g1", TASKS, 100)
        reader = _Requests([request_of(n) for n in range(4)], cache, stop)
        server.process.kill()
        server.process.wait()
        thread = threading.Thread(target=run, args=(reader, cache, stop))
        thread.start()
        _wait_until(lambda: caplog.records)
        assert reader.in_cache_at_commit == []
        server.restart()
        thread.join(20)
        cache.close()
    assert reader.in_cache_at_commit == [[True] * 4]
    messages = [record.getMessage() for record in caplog.records if record.name == "runtime.outage"]
    assert len(messages) == 2
    assert messages[0].endswith("waiting for it, no request is lost")
    assert messages[1].startswith("redis is back after seconds=")


def test_a_stop_while_redis_is_away_commits_nothing(run, request_of, caplog):
    stop = StopSignal()
    with EmbeddedRedis() as server:
        cache = LogitCache(server.url, "p:g1", TASKS, 100)
    reader = _Requests([request_of(1)], cache, stop)
    thread = threading.Thread(target=run, args=(reader, cache, stop))
    thread.start()
    _wait_until(lambda: caplog.records)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert reader.in_cache_at_commit == []


def test_a_commit_that_kafka_did_not_take_is_made_up_by_the_next(run, cache, request_of):
    stop = StopSignal()

    class _Flaky(_Requests):
        refused = False

        def commit(self):
            if not self.refused:
                self.refused = True
                raise ServiceUnavailableError("Kafka at localhost:9092 does not answer")
            super().commit()

    reader = _Flaky([request_of(n) for n in range(8)], cache, stop)
    run(reader, cache, stop)
    assert reader.in_cache_at_commit == [[True] * 8]


def _wait_until(condition):
    done = threading.Event()
    for _ in range(500):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("not within 10 s")


@pytest.fixture
def calls(scorer, monkeypatch):
    """The items of each call of the teacher."""
    scored, items = scorer.score, []

    def score(requests):
        items.append([request.item_id for request in requests])
        return scored(requests)

    monkeypatch.setattr(scorer, "score", score)
    return items


def test_a_scorer_that_lags_takes_the_newest_between_and_none_twice(run, cache, request_of, calls, monkeypatch):
    monkeypatch.setattr("teacher_cache.batch_scorer._LARGE_LAG", 8)
    ahead = _sample("graft_teacher_ahead_rows_total")
    stop = StopSignal()
    run(_Requests([request_of(n) for n in range(20)], cache, stop), cache, stop)
    assert calls[:4] == [[16, 17, 18, 19], [0, 1, 2, 3], [], [4, 5, 6, 7]]
    assert sorted(item for items in calls for item in items) == list(range(20))
    assert _sample("graft_teacher_ahead_rows_total") - ahead == 4
    assert np.isfinite(cache.get(keys(cache, [1] * 20, list(range(20)))).logit_BT).all()


def test_a_scorer_that_lags_asks_for_the_profiles_of_each_request(run, cache, request_of, monkeypatch):
    """Also where the newest are scored already, or all whose turn it is."""
    monkeypatch.setattr("teacher_cache.batch_scorer._LARGE_LAG", 8)
    asked, stop = [], StopSignal()

    class Profiles:
        def ask(self, requests):
            asked.append([request.item_id for request in requests])
            assert max(request.event_time_ms for request in requests)

        def refresh(self):
            return 0

    run(_Requests([request_of(n) for n in range(20)], cache, stop), cache, stop, Profiles())
    assert sorted(item for items in asked for item in items) == list(range(20))
    assert all(asked)


def test_what_the_teacher_refuses_ahead_of_its_turn_is_set_aside_once(run, cache, request_of, monkeypatch):
    monkeypatch.setattr("teacher_cache.batch_scorer._LARGE_LAG", 8)
    stop = StopSignal()
    broken = request_of(19, features=[20, "", [3e38, 3e38, 0.0], 5.0, 2])
    reader = _Requests([*(request_of(n) for n in range(19)), broken], cache, stop)
    run(reader, cache, stop)
    assert [impression_id for impression_id, _ in reader.aside] == ["imp-19"]


def test_a_pair_that_is_asked_for_again_keeps_its_logit_until_that_is_old(
    run, config, cache, request_of, calls, redis_url, monkeypatch
):
    monkeypatch.setitem(config.__dict__, "refresh_seconds", 60.0)
    fresh = _sample("graft_teacher_fresh_rows_total")

    def ask(*numbers):
        stop = StopSignal()
        run(_Requests([request_of(n) for n in numbers], cache, stop), cache, stop)

    ask(1, 2)
    ask(1, 2, 3)
    assert (calls, _sample("graft_teacher_fresh_rows_total") - fresh) == ([[1, 2], [3]], 2)
    now = time.time()
    cache.put(keys(cache, [1], [2]), np.zeros((1, 2), np.float32), round(1000 * (now - 61)))
    ask(1, 2)
    assert calls == [[1, 2], [3], [2]]
    assert _sample("graft_teacher_oldest_waiting_seconds") == 7.5
