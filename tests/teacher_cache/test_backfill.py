import logging
import threading
from contextlib import closing
from functools import partial
from threading import Event

import numpy as np
import pytest

from lab.embedded import free_port
from runtime.errors import ConfigurationError
from stream.events import Impression
from teacher_cache.backfill.backfill import Manner, backfill, requests_of_impressions
from teacher_cache.cache.cache import LogitCache
from teacher_cache.domain.request_scorer import RequestScorer
from tests.rows import Listed, keys


@pytest.fixture
def cache(redis_url):
    cache = LogitCache(redis_url, "p:g1", ("finish", "rating"), 100)
    yield cache
    cache.close()


def _nothing(_done, _total):
    pass


def test_history_fills_the_cache_with_the_logits_computed_by_hand(scorer, cache, request_of):
    report = backfill(Listed(request_of(n) for n in range(10)), scorer, cache, batch_rows=4, progress=_nothing)
    assert cache.get(keys(cache, [1] * 10, list(range(10)))).logit_BT.tolist() == [[18.0 + n, 4.5] for n in range(10)]
    assert (report.rows, report.defaulted_share, report.fallback_share) == (10, 0.25, 0.0)
    assert 0 < report.seconds < 10


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_of_a_row_that_comes_again_the_last_row_holds_and_counts_once(scorer, cache, request_of, batch_rows):
    rows = [request_of(1, item_id=5), request_of(2, item_id=6), request_of(3, item_id="5")]
    report = backfill(Listed(rows), scorer, cache, batch_rows=batch_rows, progress=_nothing)
    assert report.rows == 2
    assert cache.get(keys(cache, [1, 1], [5, 6])).logit_BT[:, 0].tolist() == [21.0, 20.0]


def test_progress_tells_the_rows_read_and_where_they_end(scorer, cache, request_of):
    calls = []
    rows = [request_of(n) for n in range(5)]
    backfill(Listed(rows), scorer, cache, batch_rows=2, progress=lambda *told: calls.append(told))
    assert calls == [(2, {0: 2}), (4, {0: 4}), (5, {0: 5})]


def test_a_dry_run_reports_the_same_and_puts_nothing(scorer, cache, request_of):
    rows = [request_of(1), request_of(2, features=[None, None, None, None, None])]
    dry = backfill(Listed(rows), scorer, cache, batch_rows=4, progress=_nothing, manner=Manner(dry_run=True))
    assert np.isnan(cache.get(keys(cache, [1, 1], [1, 2])).logit_BT).all()
    assert (dry.rows, dry.fallback_share) == (2, 0.5)
    done = backfill(Listed(rows), scorer, cache, batch_rows=4, progress=_nothing)
    timeless = {"seconds": 0, "teacher_seconds": 0}
    assert done._replace(**timeless) == dry._replace(**timeless)


def test_rows_of_another_spec_and_rows_that_the_teacher_cannot_score_are_left_out_and_counted(
    scorer, cache, request_of, caplog
):
    broken = request_of(3, features=[20, "", [3e38, 3e38, 0.0], 5.0, 3])
    rows = [request_of(1), request_of(2, spec_id="0123456789abcdef"), broken, request_of(4)]
    report = backfill(Listed(rows), scorer, cache, batch_rows=2, progress=_nothing)
    assert (report.rows, report.left_out) == (2, 2)
    found = cache.get(keys(cache, [1] * 4, [1, 2, 3, 4])).logit_BT[:, 0]
    assert np.isfinite(found).tolist() == [True, False, False, True]
    assert (
        caplog.records[-1].getMessage() == "left out rows=2 of another feature spec, or that the teacher cannot score"
    )


def test_no_history_is_no_row(scorer, cache):
    report = backfill(Listed([]), scorer, cache, batch_rows=4, progress=_nothing)
    assert (report.rows, report.defaulted_share, report.fallback_share) == (0, 0.25, 0.0)


def test_impressions_become_requests_with_the_features_of_now(scorer, cache, spec):
    class _Features:
        """Item n has the vector [n, 0, 0]; nothing else is known but the age."""

        reads = 0

        def read(self, user_ids, item_ids, contexts):
            self.reads += 1
            assert contexts == [{"hour": item_id} for item_id in item_ids]
            size = len(user_ids)
            return {
                "users:age": [20] * size,
                "users:job": [None] * size,
                "items:vector": [[float(n), 0.0, 0.0] for n in item_ids],
                "items:year": [None] * size,
                "item_id": list(item_ids),
            }

    features = _Features()
    impressions = [
        Impression(impression_id=f"i{n}", user_id=1, item_id=n, event_time_ms=5, context={"hour": n}) for n in range(5)
    ]
    requests = list(requests_of_impressions(impressions, features, spec, batch_rows=2))
    assert features.reads == 3
    assert requests[3].model_dump() == impressions[3].model_dump() | {
        "spec_id": spec.spec_id,
        "features": [20, None, [3.0, 0.0, 0.0], None, 3],
    }
    report = backfill(Listed(requests), scorer, cache, batch_rows=2, progress=_nothing)
    assert report.fallback_share == pytest.approx(1 / 3)
    assert cache.get(keys(cache, [1], [3])).logit_BT.tolist() == [[21.0, 4.0]]


class _Watched:
    """A teacher that does something before each call."""

    def __init__(self, teacher, before):
        self._teacher, self._before, self.calls = teacher, before, 0
        self.inputs, self.outputs = teacher.inputs, teacher.outputs

    def score(self, inputs):
        self.calls += 1
        self._before(self.calls)
        return self._teacher.score(inputs)


def test_the_teacher_computes_while_the_batch_before_is_put_and_the_next_ones_are_read(
    teacher, domain_map, spec, redis_url, request_of
):
    computing, read = Event(), Event()

    class Slow(LogitCache):
        def put(self, keys, logit_BT, scored_at_ms):
            assert computing.wait(10)  # for the teacher's second call
            return super().put(keys, logit_BT, scored_at_ms)

    def requests():
        yield from (request_of(n) for n in range(8))
        read.set()

    def before(call):
        assert read.wait(10)  # four batches of two
        if call == 2:
            computing.set()

    watched = _Watched(teacher, before)
    with closing(Slow(redis_url, "p:g1", ("finish", "rating"), 100)) as cache:
        report = backfill(
            Listed(requests()), RequestScorer(watched, domain_map, spec), cache, batch_rows=2, progress=_nothing
        )
    assert (report.rows, watched.calls) == (8, 4)


@pytest.mark.parametrize("fails", ["put", "note", "progress", "teacher", "reading"])
def test_an_error_in_any_thread_ends_a_backfill_at_once(fails, teacher, domain_map, spec, redis_url, request_of):
    def fail_if(name, *_told):
        if name == fails:
            raise KeyError(name)

    class Cache(LogitCache):
        def put(self, keys, logit_BT, scored_at_ms):
            fail_if("put")
            return super().put(keys, logit_BT, scored_at_ms)

    class Scorer(RequestScorer):
        def score_mapped(self, mapped, impression_ids):
            fail_if("teacher")
            return super().score_mapped(mapped, impression_ids)

    def requests():
        yield request_of(0)
        fail_if("reading")
        while True:
            yield request_of(1)

    with closing(Cache(redis_url, "p:g1", ("finish", "rating"), 100)) as cache, pytest.raises(KeyError, match=fails):
        backfill(
            Listed(requests()),
            Scorer(teacher, domain_map, spec),
            cache,
            batch_rows=1,
            progress=partial(fail_if, "progress"),
            put=partial(fail_if, "note"),
        )
    assert not [one for one in threading.enumerate() if one.name.startswith(("backfill", "ahead"))]


def test_an_error_while_redis_is_away_does_not_wait_for_it(teacher, domain_map, spec, request_of):
    waits = Event()
    logging.getLogger("runtime.outage").addFilter(lambda _record: waits.set() or True)

    def before(call):
        if call == 2:
            assert waits.wait(10)
            raise ConfigurationError(["odd"])

    scorer = RequestScorer(_Watched(teacher, before), domain_map, spec)
    with (
        closing(LogitCache(f"redis://127.0.0.1:{free_port()}", "p:g1", ("finish", "rating"), 100)) as cache,
        pytest.raises(ConfigurationError, match="odd"),
    ):
        backfill(Listed([request_of(1), request_of(2)]), scorer, cache, batch_rows=1, progress=_nothing)
    logging.getLogger("runtime.outage").filters.clear()


def test_rows_that_were_there_are_hits_of_before_whether_they_are_put_again_or_refused(scorer, redis_url, request_of):
    bad = [request_of(n, features=[20, "", [3e38, 3e38, 0.0], 5.0, n]) for n in (3, 6)]
    rows = [*(request_of(n) for n in range(3)), bad[0], request_of(5), bad[1], request_of(0), request_of(5)]
    for batch_rows in (1, 3, 100):
        with closing(_four_rows(redis_url, request_of, scorer, batch_rows)) as copy:
            report = backfill(Listed(rows), scorer, copy, batch_rows=batch_rows, progress=_nothing)
        assert (report.hit_rate_before, report.hit_rate_after) == pytest.approx((4 / 6, 5 / 6))
        assert (report.rows, report.read) == (4, 8)


def _four_rows(redis_url, request_of, scorer, generation):
    cache = LogitCache(redis_url, f"p:g{generation}", ("finish", "rating"), 100)
    backfill(Listed([request_of(n) for n in range(4)]), scorer, cache, progress=_nothing)
    return cache
