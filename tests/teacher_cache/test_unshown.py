"""Pairs that nobody was shown: which there are, that they wait with their impression, and what a crash does to them."""

from collections import Counter

import numpy as np
import pytest

from lab.embedded import free_port
from runtime.errors import ServiceUnavailableError
from runtime.redis import connect
from teacher_cache.cache.cache import UNUSABLE_LOGITS
from teacher_cache.cache.unshown import UnshownCache, UnshownSampler, UnshownScorer
from teacher_cache.config import UnshownConfig

TASKS = ("finish", "rating")


def sampler(spec, ratio=2.0, capacity=100):
    return UnshownSampler(spec, UnshownConfig(ratio=ratio), capacity)


def test_a_row_has_the_users_half_of_one_row_and_the_items_half_of_another(spec, request_of):
    first = request_of(1, user_id=1, features=[20, "nurse", [1.0, 0.0, 0.0], 5.0, 1])
    second = request_of(2, user_id=2, features=[40, "cook", [2.0, 0.0, 0.0], 6.0, 2])
    (row,) = sampler(spec).sample([first, second])
    assert (row.impression_id, row.user_id, row.item_id) == ("imp-2", 2, 1)
    assert row.features == [40, "cook", [1.0, 0.0, 0.0], 5.0, 1]


def test_the_newest_features_of_an_item_hold(spec, request_of):
    requests = [request_of(n, item_id=1, features=[20, "", [0.0] * 3, float(n), 1]) for n in range(3)]
    (row,) = sampler(spec).sample([*requests, request_of(9)])
    assert row.features[3] == 2.0


def test_a_row_never_has_the_shown_item_and_comes_once(spec, request_of):
    rows = sampler(spec, ratio=8).sample([request_of(n, item_id=n % 6) for n in range(200)])
    shown = {f"imp-{n}": n % 6 for n in range(200)}
    assert all(row.item_id != shown[row.impression_id] for row in rows)
    assert max(Counter((row.impression_id, row.item_id) for row in rows).values()) == 1


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0, 2.5])
def test_the_ratio_of_rows_to_impressions_is_the_declared_one(spec, request_of, ratio):
    rows = sampler(spec, ratio=ratio, capacity=5000).sample([request_of(n) for n in range(4000)])
    assert len(rows) / 4000 == pytest.approx(ratio, abs=0.03)


def test_items_are_drawn_evenly_and_only_from_the_last_ones(spec, request_of):
    chosen = sampler(spec, ratio=1, capacity=10)
    chosen.sample([request_of(n) for n in range(50)])
    rows = chosen.sample([request_of(1000 + n, item_id=49) for n in range(2000)])
    counts = Counter(row.item_id for row in rows)
    assert set(counts) == set(range(40, 49))
    assert min(counts.values()) > 140


def test_the_same_requests_give_the_same_rows_however_they_are_cut(spec, request_of):
    requests = [request_of(n, item_id=n % 7) for n in range(60)]
    whole, pieces = sampler(spec), sampler(spec)
    cut = [row for start in range(0, 60, 13) for row in pieces.sample(requests[start : start + 13])]
    assert cut == whole.sample(requests)


def test_rows_come_back_by_impression_with_their_logits(unshown, request_of):
    rows = [request_of(1, item_id=5), request_of(1, item_id=6), request_of(2, item_id=7)]
    logit_UT = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    unshown.put(rows, logit_UT)
    found = unshown.get(["imp-2", "imp-3", "imp-1"])
    assert found.features == [rows[2].features, rows[0].features, rows[1].features]
    assert found.logit_UT.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert unshown.get([]).logit_UT.shape == unshown.get(["imp-3"]).logit_UT.shape == (0, 2)


def test_a_logit_keeps_its_bits(unshown, request_of):
    logit_UT = np.array([[np.pi, -1e-30]], np.float32)
    unshown.put([request_of(1)], logit_UT)
    assert unshown.get(["imp-1"]).logit_UT.tobytes() == logit_UT.tobytes()


def test_rows_wait_no_longer_than_their_time(redis_url, unshown, request_of):
    unshown.put([request_of(1)], np.zeros((1, 2), np.float32))
    with connect(redis_url) as client:
        (key,) = client.keys("graft:unshown:*")
        assert 95 < client.ttl(key) <= 100


@pytest.mark.parametrize("value", [b"{", b"7", b"[[1]]", b"[[[20], [1.0, 2.0]]]", b'[["ab", ["x", 1]]]', b"\xff"])
def test_a_damaged_value_is_no_row(redis_url, unshown, request_of, value):
    unshown.put([request_of(1)], np.zeros((1, 2), np.float32))
    with connect(redis_url) as client:
        (key,) = client.keys("graft:unshown:*")
        client.set(key, value)
    assert unshown.get(["imp-1"]).features == []


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-1e39", "2e9", "1e999"])
def test_a_pair_with_a_logit_that_no_teacher_has_is_left_out_and_counted(redis_url, unshown, request_of, bad):
    unshown.put([request_of(1, item_id=5), request_of(1, item_id=6)], np.array([[1, 2], [3, 4]], np.float32))
    with connect(redis_url) as client:
        (key,) = client.keys("graft:unshown:*")
        client.set(key, client.get(key).replace(b"3.0", bad.encode()))
    before = UNUSABLE_LOGITS.labels("unshown")._value.get()
    found = unshown.get(["imp-1"])
    assert (len(found.features), found.logit_UT.tolist()) == (1, [[1, 2]])
    assert UNUSABLE_LOGITS.labels("unshown")._value.get() - before == 1


def test_another_generation_or_project_sees_none_of_them(redis_url, unshown, spec, request_of):
    unshown.put([request_of(1)], np.zeros((1, 2), np.float32))
    for other in (
        UnshownCache(redis_url, "p:g2", spec, TASKS, 100),
        UnshownCache(redis_url, "q:g1", spec, TASKS, 100),
    ):
        assert other.get(["imp-1"]).features == []
        other.close()


def test_a_row_that_the_teacher_cannot_score_is_left_out(spec, scorer, unshown, request_of):
    bad = request_of(1, features=[20, "nurse", [3e38, 3e38, 0.0], 5.0, 1])
    work = UnshownScorer(sampler(spec, ratio=20), scorer, unshown)
    scored = work.score(work.sample([bad, *(request_of(n) for n in range(2, 6))]))
    assert scored is not None
    work.put(scored)
    found = unshown.get(["imp-5"])
    assert [row[4] for row in found.features] == [2, 3, 4]
    assert found.logit_UT.tolist() == [[20.0, 4.5], [21.0, 4.5], [22.0, 4.5]]


def test_without_redis_there_is_an_error_that_names_it(spec, request_of):
    cache = UnshownCache(f"redis://127.0.0.1:{free_port()}", "p:g1", spec, TASKS, 100)
    with pytest.raises(ServiceUnavailableError):
        cache.get(["imp-1"])
    with pytest.raises(ServiceUnavailableError):
        cache.put([request_of(1)], np.zeros((1, 2), np.float32))
