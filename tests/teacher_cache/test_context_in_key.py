"""A logit is of its context: the batch scorer, the backfill and the cache tell the hours of one user and item apart."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.redis import Client, connect
from stream.events import TeacherRequest
from teacher_cache.backfill.backfill import Manner, backfill
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache
from teacher_cache.cache.inventory import Inventory
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.context_key import NO_CONTEXT, ContextKey, context_digest
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from tests.rows import Listed
from tests.teacher_cache.hourly import CONFIG, CONTEXT, MISSING_HOUR, SPEC, hourly_request, hourly_scorer, said_of
from tests.teacher_cache.test_failing_teacher import _Requests

_TASKS = ("finish", "rating")
_GENERATION = "0123456789abcdef"
_PREFIX = f"graft:logits:p:{_GENERATION}:"
_NOTHING = Manner()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> RequestScorer:
    return hourly_scorer(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def cache(redis_url: str) -> Iterator[LogitCache]:
    cache = LogitCache(redis_url, f"p:{_GENERATION}", _TASKS, 100, CONTEXT)
    yield cache
    cache.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with connect(redis_url) as connection:
        yield connection


def _score(
    requests: Sequence[TeacherRequest], scorer: RequestScorer, cache: LogitCache, config: TeacherConfig = CONFIG
) -> None:
    reader = _Requests(requests)
    run_batch_scorer(reader, scorer, cache, config, reader.stop)
    assert reader.aside == []


def _backfill(
    requests: Sequence[TeacherRequest],
    scorer: RequestScorer,
    cache: LogitCache,
    manner: Manner = _NOTHING,
) -> Any:
    return backfill(Listed(requests), scorer, cache, batch_rows=4, progress=lambda _rows, _reached: None, manner=manner)


def test_two_impressions_of_one_user_and_item_have_the_logits_of_their_own_hours(
    scorer: RequestScorer, cache: LogitCache
) -> None:
    morning, evening, timeless = (hourly_request(n, 5, hour) for n, hour in enumerate((8, 21, None)))
    _score([morning, evening, timeless], scorer, cache)
    assert cache.get(cache.keys_of([evening, timeless, morning])).logit_BT.tolist() == [
        [521.0, 21.0],
        [500.0 + MISSING_HOUR, MISSING_HOUR],
        [508.0, 8.0],
    ]
    assert np.isnan(cache.get(cache.keys_of([hourly_request(3, 5, 22)])).logit_BT).all()


def test_a_key_has_the_users_id_and_the_contexts_digest_and_expires_alone(cache: LogitCache, client: Client) -> None:
    rows = [hourly_request(0, 5, 8, user_id=7), hourly_request(1, 6, 8, user_id=7), hourly_request(2, 5, 21, user_id=7)]
    cache.put(cache.keys_of(rows), np.zeros((3, 2), np.float32), 1_700_000_000_000)
    digests = {hour: context_digest({"context:hour": float(hour)}) for hour in (8, 21)}
    keys: Any = client.keys("graft:logits:*")
    assert sorted(keys) == sorted(f"{_PREFIX}7:{digest}".encode() for digest in digests.values())
    assert client.hkeys(f"{_PREFIX}7:{digests[8]}") == [b"5", b"6"]
    client.expire(f"{_PREFIX}7:{digests[8]}", 5)
    cache.put(cache.keys_of(rows[2:]), np.zeros((1, 2), np.float32), 1_700_000_000_000)
    assert [client.ttl(f"{_PREFIX}7:{digests[hour]}") for hour in (8, 21)] == [5, 100]


def test_what_a_teacher_without_context_has_put_is_not_read_with_one_nor_the_other_way_round(
    redis_url: str, cache: LogitCache
) -> None:
    former = LogitCache(redis_url, f"p:{_GENERATION}", _TASKS, 100, NO_CONTEXT)
    request = hourly_request(0, 5, 8)
    former.put(former.keys_of([request]), np.ones((1, 2), np.float32), time.time_ns() // 1_000_000)
    assert np.isnan(cache.get(cache.keys_of([request])).logit_BT).all()
    cache.put(cache.keys_of([request]), np.zeros((1, 2), np.float32), time.time_ns() // 1_000_000)
    assert cache.get(cache.keys_of([request])).logit_BT.tolist() == [[0.0, 0.0]]
    assert former.get(former.keys_of([request])).logit_BT.tolist() == [[1.0, 1.0]]
    former.close()


_hours = st.none() | st.sampled_from([0, 0.0, -0.0, 1, 1.0, 1.5, 2**53, 2.0**53, 1e300, "1"])
_rows = st.tuples(st.sampled_from([1, 11]), st.sampled_from([1, 2]), _hours, st.sampled_from(["phone", "car"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the database is emptied each time
@given(put=st.lists(_rows, max_size=12), asked=st.lists(_rows, max_size=12))
def test_no_logit_of_another_context_is_ever_returned(redis_url: str, put: list[Any], asked: list[Any]) -> None:
    def request(row: Any) -> TeacherRequest:
        user, item, hour, device = row
        return hourly_request(0, item, hour, user_id=user, device=device)

    def told(row: TeacherRequest) -> Any:
        hour = row.features[2]
        return row.user_id, row.item_id, hour if hour is None else float(hour).hex()  # type: ignore[arg-type]

    with connect(redis_url) as client:
        client.flushdb()
    cache = LogitCache(redis_url, f"p:{_GENERATION}", _TASKS, 100, CONTEXT)
    known = {}
    for n, row in enumerate(map(request, put)):
        cache.put(cache.keys_of([row]), np.full((1, 2), n, np.float32), time.time_ns() // 1_000_000)
        known[told(row)] = float(n)
    found = cache.get(cache.keys_of(list(map(request, asked)))).logit_BT[:, 0]
    cache.close()
    np.testing.assert_array_equal(found, [known.get(told(row), np.nan) for row in map(request, asked)])


def test_a_row_is_spared_by_refresh_seconds_in_its_own_context_alone(
    scorer: RequestScorer, cache: LogitCache, client: Client
) -> None:
    spared = CONFIG.model_copy(update={"refresh_seconds": 60.0})
    first = [hourly_request(0, 5, 8), hourly_request(1, 5, 21)]
    _score(first[:1], scorer, cache, spared)
    _score(first, scorer, cache, spared)
    assert client.hget(f"graft:teachers:p:{_GENERATION}", "put:run") == b"2"
    assert cache.get(cache.keys_of(first)).logit_BT.tolist() == [said_of(one) for one in first]
    _score([hourly_request(2, 5, 8, device="car")], scorer, cache, spared)
    assert client.hget(f"graft:teachers:p:{_GENERATION}", "put:run") == b"2"


def test_a_backfill_scores_a_user_and_item_once_for_each_context(scorer: RequestScorer, cache: LogitCache) -> None:
    requests = [hourly_request(n, n % 2, n % 3) for n in range(12)]
    report = _backfill(requests, scorer, cache)
    assert (report.rows, report.read, report.hit_rate_before, report.hit_rate_after) == (6, 12, 0.0, 1.0)
    assert cache.get(cache.keys_of(requests)).logit_BT.tolist() == [said_of(one) for one in requests]
    more = [*requests, hourly_request(12, 0, 3)]
    missing = _backfill(more, scorer, cache, manner=Manner(missing_only=True))
    assert (missing.rows, missing.hit_rate_before) == (1, pytest.approx(6 / 7))
    assert cache.get(cache.keys_of(more)).logit_BT.tolist() == [said_of(one) for one in more]


def test_the_bytes_of_a_dry_run_are_those_of_its_keys(scorer: RequestScorer, cache: LogitCache, client: Client) -> None:
    requests = [hourly_request(n, n % 40, n % 7, user_id=n % 9) for n in range(1_400)]
    dry = _backfill(requests, scorer, cache, manner=Manner(dry_run=True))
    assert client.keys("graft:logits:*") == []
    done = _backfill(requests, scorer, cache)
    taken = sum(client.memory_usage(key) for key in client.keys("graft:logits:*"))  # type: ignore[union-attr,misc]
    assert dry.bytes == done.bytes == pytest.approx(taken, rel=0.35)


def test_a_dump_tells_the_hours_apart_where_the_hour_is_a_key_of_it(
    redis_url: str, tmp_path: Path, scorer: RequestScorer
) -> None:
    del scorer  # a dump has no model
    rows = {"clip": [5, 5, 6], "hour": [8, 21, 8], "a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 0.125]}
    pq.write_table(pa.table(rows), tmp_path / "dump.parquet")
    spec = SPEC.model_copy(
        update={
            "features": tuple(
                f.model_copy(update={"dtype": "int"}) if f.name == "context:hour" else f for f in SPEC.features
            )
        }
    )
    found = {}
    for keys in (("clip", "hour"), ("clip",)):
        features = {"clip": "item_id", "hour": "context:hour"}
        table = {
            "version": "t1",
            "dump": {"path": "dump.parquet", "model": "m", "keys": dict.fromkeys(keys, "int")},
            "tasks": [
                {"name": "finish", "kind": "binary", "output": "a"},
                {"name": "rating", "kind": "regression", "output": "b"},
            ],
            "inputs": {key: {"kind": "feature", "feature": features[key], "default": 0} for key in keys},
        }
        config = TeacherConfig.model_validate(table)
        teacher = load_teacher(config, tmp_path)
        of_dump = RequestScorer(teacher, DomainMap(config, tmp_path, teacher, spec), spec)
        context = ContextKey.seen_by(config, spec)
        cache = LogitCache(redis_url, f"p:{len(keys)}", _TASKS, 100, context)
        requests = [_whole(n, hour, spec.spec_id) for n, hour in enumerate((8, 21, 22))]
        _backfill(requests, of_dump, cache)
        found[keys] = cache.get(cache.keys_of(requests)).logit_BT[:, 0].tolist()
        cache.close()
    assert found["clip", "hour"] == pytest.approx([1.0, 2.0, np.nan], nan_ok=True)
    assert found["clip",] == [2.0, 2.0, 2.0]  # of equal keys of the dump the last one holds


def _whole(n: int, hour: int, spec_id: str) -> TeacherRequest:
    request = hourly_request(n, 5, hour)
    return request.model_copy(update={"spec_id": spec_id, "features": [*request.features[:2], hour]})


def test_the_inventory_counts_a_user_once_and_shows_the_logits_of_each_context(
    scorer: RequestScorer, cache: LogitCache, redis_url: str
) -> None:
    odd = [hourly_request(n, 5, n % 3, user_id=user) for n, user in enumerate((7, 7, 7, 71, 7))]
    _backfill(odd, scorer, cache)
    inventory = Inventory(redis_url, "p", {_GENERATION})
    found = inventory.contents()[_GENERATION]
    assert (found.users, found.rows) == (2, 4)
    told = {one.context: one.logits for one in inventory.logits("7", "5", [_GENERATION])}
    assert told == {context_digest({"context:hour": float(h)}): [500.0 + h, float(h)] for h in range(3)}
    assert inventory.logits("7", "6", [_GENERATION]) == []
    assert len(inventory.logits("71", "5", [_GENERATION])) == 1
    assert sum(inventory.ages(_GENERATION, time.time())) == 4
    inventory.close()
