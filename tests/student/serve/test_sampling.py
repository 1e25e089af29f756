"""Served rows are kept for the learner: exactly what was scored, for the impressions that a request names."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from features.online.reader import OnlineReader
from features.online.redis_layout import EntityLayout, begin_field
from features.online.served_rows import ServedRow, ServedRowReader
from features.spec import FeatureBatch
from runtime.redis import connect
from student.evaluate.skew import Skew
from student.serve import scoring as sampling
from student.serve.scoring import Sampler
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, SPEC, Endpoint, publish, serving, store_age, until

NAMED = {**BODY, "impression_ids": ["m1", "m2", "m3"]}


@pytest.fixture
def endpoint(registry: Registry, redis_url: str) -> Iterator[Endpoint]:
    publish(registry)
    store_age(redis_url, 1, 20.0)
    with connect(redis_url) as client:
        client.hset(EntityLayout("p", "user_id", "int", []).key(1), begin_field("users"), b"\x08\x05")  # 5 s after 1970
    with serving(registry, redis_url, sample=1.0) as running:
        running.wait_for("v000001")
        yield running


def kept(redis_url: str, ids: list[str]) -> list[ServedRow]:
    reader = ServedRowReader(redis_url, SPEC)
    try:
        until(lambda: all(reader.read(ids)), "the rows in Redis")
        return [row for row in reader.read(ids) if row is not None]
    finally:
        reader.close()


def seen_by_the_stream(redis_url: str) -> FeatureBatch:
    reader = OnlineReader(SPEC, redis_url)
    try:
        return SPEC.encode(reader.read([1] * 3, [10, 11, 12], [{"hour": 3}] * 3))
    finally:
        reader.close()


def test_rows_are_what_the_learner_sees_until_a_feature_changes(endpoint: Endpoint, redis_url: str) -> None:
    assert endpoint.post(NAMED)[0] == 200
    rows = kept(redis_url, NAMED["impression_ids"])
    assert {row.version for row in rows} == {"v000001"}
    assert all(row.begins_ms == {"users": 5_000} for row in rows)
    skew = Skew(SPEC)
    skew.compare(seen_by_the_stream(redis_url), rows)
    store_age(redis_url, 1, 21.0)
    skew.compare(seen_by_the_stream(redis_url), rows)
    report = skew.told({})
    assert (report.rows, report.differing_rows, report.differing) == (6, 3, {"users:age": 3})


def test_the_requests_id_is_kept_and_an_explained_request_too(endpoint: Endpoint, redis_url: str) -> None:
    connection = endpoint.connect()
    body = b'{"user_id": 1, "item_ids": [10], "impression_ids": ["x"], "explain": true}'
    connection.request("POST", "/score", body, {"X-Request-ID": "r-17"})
    assert connection.getresponse().status == 200
    connection.close()
    (row,) = kept(redis_url, ["x"])
    assert row.request_id == "r-17"


def test_rows_expire_after_the_longest_window_and_an_hour(endpoint: Endpoint, redis_url: str) -> None:
    endpoint.post(NAMED)
    kept(redis_url, NAMED["impression_ids"])
    with connect(redis_url) as client:
        ttls = [client.ttl(key) for key in client.keys("graft:served:*")]
    assert len(ttls) == len(NAMED["impression_ids"])
    assert all(3_600 < ttl <= 3_660 for ttl in ttls)


@pytest.mark.parametrize(
    ("impressions", "field"),
    [
        (["a"] * 1_001, "impression_ids"),
        (["a", "b", ""], "impression_ids[2]"),
        (["a", "b", "x" * 257], "impression_ids[2]"),
        (["a", "b", 3], "impression_ids[2]"),
        ("abc", "impression_ids"),
    ],
)
def test_impressions_that_do_not_fit_are_refused(endpoint: Endpoint, impressions: Any, field: str) -> None:
    status, reply = endpoint.post({**BODY, "impression_ids": impressions})
    assert (status, reply["error"]["field"]) == (422, field)


def test_items_without_an_impression_are_not_kept(endpoint: Endpoint, redis_url: str) -> None:
    for impressions in ([], [None, "b"], ["a", "b", "c", "beyond"]):
        assert endpoint.post({**BODY, "impression_ids": impressions})[0] == 200
    kept(redis_url, ["a", "b", "c"])
    with connect(redis_url) as client:
        assert len(client.keys("graft:served:*")) == 3


def test_a_share_of_impressions_is_kept_the_same_ones_by_every_scorer() -> None:
    ids = [f"m{n}" for n in range(20_000)]
    chosen = [{one for one in ids if Sampler(share).takes(one)} for share in (0.0, 0.1, 0.1, 0.3, 1.0)]
    assert [len(of) for of in (chosen[0], chosen[4])] == [0, len(ids)]
    assert chosen[1] == chosen[2] <= chosen[3]
    assert abs(len(chosen[1]) / len(ids) - 0.1) < 0.01


def test_without_redis_requests_are_answered_and_rows_dropped(registry: Registry) -> None:
    publish(registry)
    with serving(registry, "redis://127.0.0.1:1/0", sample=1.0) as endpoint:
        endpoint.wait_for("v000001")
        name = 'graft_scorer_sampled_rows_total{outcome="dropped"}'
        before = endpoint.metric(name)
        status, reply = endpoint.post(NAMED)
        assert (status, reply["degraded"]) == (200, True)
        until(lambda: endpoint.metric(name) == before + 3, "the rows to be dropped")


class Hanging:
    """What serves, with a reader of which nobody gets an answer."""

    @property
    def reader(self) -> "Hanging":
        return self

    async def read_dated(self, *_: Any) -> Any:
        await asyncio.sleep(60)


class Rows:
    batch = FeatureBatch(np.zeros((1, 2), np.float32), np.zeros((1, 1), np.uint64))


def asked_at_once(requests: int, rows: int, monkeypatch: pytest.MonkeyPatch, second: list[int]) -> list[int]:
    """How many requests' rows are being written after so many in each of these seconds, with `rows` rows each."""

    async def ask() -> list[int]:
        sampler: Any = Sampler(1.0)
        waiting = []
        for now in second:
            monkeypatch.setattr(sampling, "_now", lambda now=now: now)
            for number in range(requests):
                ids = [f"m{number}-{row}" for row in range(rows)]
                request = {"user_id": 1, "item_ids": list(range(rows)), "impression_ids": ids}
                sampler.take(Hanging(), request, Rows(), None)
            waiting.append(len(sampler._writing))
        for task in list(sampler._writing):
            task.cancel()
        await sampler.close()
        return waiting

    return asyncio.run(ask())


def test_a_redis_that_hangs_holds_no_more_than_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_at_once(10, 1, monkeypatch, list(range(1, 11)))[-1] == 64


def test_a_client_that_names_many_impressions_fills_redis_no_faster_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped = sampling.SAMPLED.labels("dropped")
    before = dropped._value.get()
    assert asked_at_once(30, 1, monkeypatch, [1, 1, 2]) == [20, 20, 40]
    assert dropped._value.get() - before == 50
    assert asked_at_once(2, 1_000, monkeypatch, [1, 2]) == [1, 2]
    assert dropped._value.get() - before == 50 + 4_000 - 40
