import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lab.embedded import free_port
from runtime.errors import ServiceUnavailableError
from runtime.redis import connect
from teacher_cache.cache.cache import UNUSABLE_LOGITS, LogitCache, decode, encode
from tests.rows import keys

DAY = 86_400
TASKS = ("finish", "rating")


@pytest.fixture
def open_cache(redis_url):
    """Opens caches on the test's Redis: by default of generation g1 of project p with the tasks finish and rating."""
    caches = []

    def connect_cache(generation="p:g1", tasks=TASKS, ttl_seconds=DAY):
        caches.append(LogitCache(redis_url, generation, tasks, ttl_seconds))
        return caches[-1]

    yield connect_cache
    for cache in caches:
        cache.close()


@pytest.fixture
def client(redis_url):
    """A plain connection to look at what lies in Redis."""
    with connect(redis_url) as connection:
        yield connection


def _logits(*rows):
    return np.array(rows, np.float32)


def _now_ms():
    return int(time.time() * 1000)


def test_rows_come_back_in_the_order_asked_for_with_nan_rows_for_misses(open_cache):
    cache = open_cache()
    cache.put(keys(cache, [1, 2, 1], [10, 10, 11]), _logits([1, 2], [3, 4], [5, 6]), _now_ms() - 30_000)
    found = cache.get(keys(cache, [1, 3, 1, 2, 2, 1], [11, 10, 10, 99, 10, 11]))
    nan = float("nan")
    np.testing.assert_array_equal(found.logit_BT, _logits([5, 6], [nan, nan], [1, 2], [nan, nan], [3, 4], [5, 6]))
    assert found.logit_BT.dtype == np.float32
    assert np.isnan(found.age_seconds_B).tolist() == [False, True, False, True, False, False]
    assert found.age_seconds_B[0] == pytest.approx(30, abs=2)


def test_the_layout_is_a_hash_per_generation_and_user_beside_counts(open_cache, client):
    cache = open_cache()
    cache.put(keys(cache, [7], ["film"]), _logits([1.0, -2.0]), 1_700_000_000_999)
    cache.count_reads(3, 2)
    assert sorted(client.keys()) == [b"graft:logits:p:g1:7", b"graft:teachers:p:g1"]
    assert client.hgetall("graft:teachers:p:g1") == {b"put:run": b"1", b"hits": b"3", b"misses": b"2"}
    stored = client.hgetall("graft:logits:p:g1:7")
    assert stored == {b"film": (1_700_000_000).to_bytes(4, "little") + b"\x00\x00\x80\x3f" + b"\x00\x00\x00\xc0"}


def test_an_ids_type_does_not_matter(open_cache):
    cache = open_cache()
    cache.put(keys(cache, ["7"], [10]), _logits([1, 2]), _now_ms())
    assert cache.get(keys(cache, [7], ["10"])).logit_BT.tolist() == [[1, 2]]


def test_ids_that_only_look_alike_stay_apart(open_cache):
    cache = open_cache()
    users = [7, "07", " 7", "7:8", "é", -7]
    cache.put(keys(cache, users, [1] * 6), np.arange(12, dtype=np.float32).reshape(6, 2), _now_ms())
    assert cache.get(keys(cache, users, [1] * 6)).logit_BT[:, 0].tolist() == [0, 2, 4, 6, 8, 10]


def test_a_later_put_of_a_row_holds_also_within_one_call(open_cache):
    cache = open_cache()
    cache.put(keys(cache, [1, 1], [10, 10]), _logits([1, 1], [2, 2]), _now_ms())
    assert cache.get(keys(cache, [1], [10])).logit_BT.tolist() == [[2, 2]]
    cache.put(keys(cache, [1], [10]), _logits([3, 3]), _now_ms())
    assert cache.get(keys(cache, [1], [10])).logit_BT.tolist() == [[3, 3]]


def test_another_generation_or_project_sees_nothing(open_cache):
    cache = open_cache()
    cache.put(keys(cache, [1], [10]), _logits([1, 2]), _now_ms())
    for other in (open_cache("p:g2"), open_cache("q:g1"), open_cache("p:g")):
        assert np.isnan(other.get(keys(other, [1], [10])).logit_BT).all()


def test_a_value_of_another_length_is_a_miss(open_cache, client):
    cache = open_cache()
    cache.put(keys(cache, [1], [10]), _logits([1, 2]), _now_ms())
    (key,) = client.keys("graft:logits:*")
    client.hset(key, "11", b"\x00" * 8)
    client.hset(key, "12", b"")
    assert np.isnan(cache.get(keys(cache, [1, 1, 1], [10, 11, 12])).logit_BT[:, 0]).tolist() == [False, True, True]


def test_a_users_hash_lives_for_the_ttl_from_its_last_put(open_cache, client):
    cache = open_cache(ttl_seconds=100)
    cache.put(keys(cache, [1], [10]), _logits([1, 2]), _now_ms())
    (key,) = client.keys("graft:logits:*")
    assert client.ttl(key) in (99, 100)
    client.expire(key, 5)
    cache.put(keys(cache, [1], [11]), _logits([1, 2]), _now_ms())
    assert client.ttl(key) in (99, 100)


def test_a_logit_older_than_the_ttl_is_a_miss_though_its_users_hash_lives(open_cache):
    cache = open_cache(ttl_seconds=100)
    cache.put(keys(cache, [1], [10]), _logits([1, 2]), _now_ms() - 102_000)
    cache.put(keys(cache, [1], [11]), _logits([1, 2]), _now_ms() - 90_000)
    assert np.isnan(cache.get(keys(cache, [1, 1], [10, 11])).logit_BT[:, 0]).tolist() == [True, False]


def test_a_logit_from_a_clock_ahead_of_ours_has_age_zero(open_cache):
    cache = open_cache()
    cache.put(keys(cache, [1], [10]), _logits([1, 2]), _now_ms() + 60_000)
    assert cache.get(keys(cache, [1], [10])).age_seconds_B.tolist() == [0.0]


def test_more_rows_than_one_round_trip_takes_come_back(open_cache):
    cache = open_cache()
    users = [n % 97 for n in range(5001)]
    items = list(range(5001))
    logit_BT = np.arange(10_002, dtype=np.float32).reshape(5001, 2)
    cache.put(keys(cache, users, items), logit_BT, _now_ms())
    assert cache.get(keys(cache, users, items)).logit_BT.tolist() == logit_BT.tolist()


def test_no_rows_are_no_trip(open_cache):
    cache = open_cache()
    cache.put(keys(cache, [], []), np.empty((0, 2), np.float32), _now_ms())
    assert cache.get(keys(cache, [], [])).logit_BT.shape == (0, 2)


def test_a_logit_that_is_not_finite_is_refused_whole(open_cache, client):
    cache = open_cache()
    with pytest.raises(ValueError, match="logits must be finite"):
        cache.put(keys(cache, [1, 1], [10, 11]), _logits([1, 2], [1, np.nan]), _now_ms())
    assert client.keys() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.1e9, -3e38])
def test_a_stored_row_with_a_logit_that_no_teacher_has_is_a_miss_and_counted(bad):
    head = (1_700_000_000).to_bytes(4, "little")
    values = [head + _logits([1, 2]).tobytes(), head + _logits([1, bad]).tobytes(), head + _logits([-1e9, 0]).tobytes()]
    before = UNUSABLE_LOGITS.labels("logits")._value.get()
    found = decode(values, 2, 1_700_000_001, DAY)
    np.testing.assert_array_equal(found.logit_BT, _logits([1, 2], [np.nan, np.nan], [-1e9, 0]))
    assert np.isnan(found.age_seconds_B).tolist() == [False, True, False]
    assert UNUSABLE_LOGITS.labels("logits")._value.get() - before == 1


def test_a_redis_that_is_away_is_named():
    cache = LogitCache(f"redis://127.0.0.1:{free_port()}/0", "p:g1", TASKS, DAY)
    with pytest.raises(ServiceUnavailableError, match=r"Redis at redis://127\.0\.0\.1:\d+/0 does not answer"):
        cache.get(keys(cache, [1], [1]))
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        cache.put(keys(cache, [1], [1]), _logits([1, 2]), _now_ms())


finite = st.floats(-1e9, 1e9, width=32)
batches = st.integers(1, 5).flatmap(
    lambda tasks: st.integers(0, 6).flatmap(lambda rows: arrays(np.float32, (rows, tasks), elements=finite))
)


@settings(deadline=None)  # the machine may be busy
@given(logit_BT=batches, scored_at_seconds=st.integers(0, 2**32 - 1), age_seconds=st.integers(0, 100))
def test_the_codec_gives_back_every_bit_and_the_age(logit_BT, scored_at_seconds, age_seconds):
    values = encode(logit_BT, scored_at_seconds * 1000 + 999)
    assert {len(value) for value in values} <= {4 + 4 * logit_BT.shape[1]}
    found = decode(values, logit_BT.shape[1], scored_at_seconds + age_seconds, 100)
    assert found.logit_BT.tobytes() == logit_BT.tobytes()
    assert found.age_seconds_B.tolist() == [age_seconds] * len(logit_BT)


@settings(deadline=None)  # the machine may be busy
@given(values=st.lists(st.none() | st.binary(max_size=16)))
def test_no_bytes_break_the_decoder(values):
    found = decode(values, 2, 0.0, 10)
    assert found.logit_BT.shape == (len(values), 2)
    wrong = [value is None or len(value) != 12 for value in values]
    assert np.isnan(found.age_seconds_B[wrong]).all()
    known = ~np.isnan(found.logit_BT)
    assert (np.abs(found.logit_BT[known]) <= 1e9).all()


def test_a_key_of_another_type_is_a_miss_and_costs_no_other_user_its_logits(open_cache, client, caplog):
    cache = open_cache()
    key = "graft:logits:p:g1:1"
    client.set(key, "no hash")
    cache.put(keys(cache, [1, 2, 1], [10, 10, 11]), _logits([1, 2], [3, 4], [5, 6]), _now_ms())
    assert f"2 rows are not kept, such as those of {key}, which is no hash" in caplog.text
    found = cache.get(keys(cache, [1, 2], [10, 10]))
    np.testing.assert_array_equal(found.logit_BT, _logits([np.nan, np.nan], [3, 4]))
    assert client.get(key) == b"no hash"
