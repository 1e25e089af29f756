import numpy as np
import pytest

from stream.events import Impression
from teacher_cache.backfill import backfill, requests_of_impressions
from teacher_cache.cache import LogitCache


@pytest.fixture
def cache(redis_url):
    cache = LogitCache(redis_url, "t1", ("finish", "rating"), 100)
    yield cache
    cache.close()


def _nothing(_done, _total):
    pass


def test_history_fills_the_cache_with_the_logits_computed_by_hand(scorer, cache, request_of):
    report = backfill((request_of(n) for n in range(10)), scorer, cache, 4, progress=_nothing)
    assert cache.get([1] * 10, list(range(10))).logit_BT.tolist() == [[18.0 + n, 4.5] for n in range(10)]
    assert (report.pairs, report.defaulted_share, report.fallback_share) == (10, 0.25, 0.0)
    assert 0 < report.seconds < 10


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_of_a_pair_that_comes_again_the_last_row_holds_and_counts_once(scorer, cache, request_of, batch_rows):
    rows = [request_of(1, item_id=5), request_of(2, item_id=6), request_of(3, item_id="5")]
    report = backfill(rows, scorer, cache, batch_rows, progress=_nothing)
    assert report.pairs == 2
    assert cache.get([1, 1], [5, 6]).logit_BT[:, 0].tolist() == [21.0, 20.0]


def test_progress_counts_rows_up_to_the_total(scorer, cache, request_of):
    calls = []
    backfill(
        [request_of(n) for n in range(5)],
        scorer,
        cache,
        2,
        progress=lambda done, total: calls.append((done, total)),
        total=5,
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_a_dry_run_reports_the_same_and_puts_nothing(scorer, cache, request_of):
    rows = [request_of(1), request_of(2, features=[None, None, None, None, None])]
    dry = backfill(rows, scorer, cache, 4, progress=_nothing, dry_run=True)
    assert np.isnan(cache.get([1, 1], [1, 2]).logit_BT).all()
    assert (dry.pairs, dry.fallback_share) == (2, 0.5)
    assert backfill(rows, scorer, cache, 4, progress=_nothing)[2:] == dry[2:]


def test_rows_of_another_spec_and_rows_that_the_teacher_cannot_score_are_left_out_and_counted(
    scorer, cache, request_of, caplog
):
    broken = request_of(3, features=[20, "", [3e38, 3e38, 0.0], 5.0, 3])
    rows = [request_of(1), request_of(2, spec_id="0123456789abcdef"), broken, request_of(4)]
    report = backfill(rows, scorer, cache, 2, progress=_nothing)
    assert (report.pairs, report.left_out) == (2, 2)
    assert np.isfinite(cache.get([1] * 4, [1, 2, 3, 4]).logit_BT[:, 0]).tolist() == [True, False, False, True]
    assert (
        caplog.records[-1].getMessage() == "left out rows=2 of another feature spec, or that the teacher cannot score"
    )


def test_no_history_is_no_pair(scorer, cache):
    report = backfill([], scorer, cache, 4, progress=_nothing)
    assert (report.pairs, report.defaulted_share, report.fallback_share) == (0, 0.25, 0.0)


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
    report = backfill(requests, scorer, cache, 2, progress=_nothing)
    assert report.fallback_share == pytest.approx(1 / 3)
    assert cache.get([1], [3]).logit_BT.tolist() == [[21.0, 4.0]]
