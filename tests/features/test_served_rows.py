"""Served rows in Redis: what is written comes back, and what others write is no row."""

import json
from typing import Any

import numpy as np
import pytest

from features.online.served_rows import ServedRow, ServedRowReader, set_command
from runtime.errors import ServiceUnavailableError
from runtime.redis import connect, exchange
from tests.specs import spec_of

SPEC = spec_of()
DENSE = len(SPEC.dense_names)
CATEGORICAL = len(SPEC.categorical)


def row(**changes: Any) -> ServedRow:
    made = ServedRow(
        request_id="r-1",
        version="v000003",
        served_at_ms=1_700_000_000_123,
        spec_id=SPEC.spec_id,
        dense_D=np.linspace(-1e30, 1e-30, DENSE, dtype=np.float32),
        categorical_C=np.arange(CATEGORICAL, dtype=np.uint64) + np.uint64(2**63),
        begins_ms={"users": 1_699_999_999_000},
    )
    return made._replace(**changes)


def put(url: str, impression_id: str, row: ServedRow, ttl_seconds: int = 60) -> None:
    with connect(url) as client:
        assert exchange(client, [set_command(SPEC.feast_project, impression_id, row, ttl_seconds)]) == [b"OK"]


@pytest.fixture
def reader(redis_url: str) -> Any:
    reader = ServedRowReader(redis_url, SPEC)
    yield reader
    reader.close()


def test_a_row_comes_back_bit_for_bit_and_expires(redis_url: str, reader: ServedRowReader) -> None:
    written = {"m1": row(), "m:2 \ud800": row(request_id=None, begins_ms={})}
    for impression_id, one in written.items():
        put(redis_url, impression_id, one)
    found = reader.read(["m1", "absent", "m:2 \ud800"])
    assert found[1] is None
    for one, wanted in zip([found[0], found[2]], written.values(), strict=True):
        assert one is not None
        assert (one.dense_D.tobytes(), one.categorical_C.tobytes()) == (
            wanted.dense_D.tobytes(),
            wanted.categorical_C.tobytes(),
        )
        assert one._replace(dense_D=DENSE, categorical_C=0) == wanted._replace(dense_D=DENSE, categorical_C=0)  # type: ignore[arg-type]
    with connect(redis_url) as client:
        assert all(0 < client.ttl(key) <= 60 for key in client.keys("graft:served:*"))
    assert reader.read([]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"spec_id": "0" * 16},
        {"dense_D": np.zeros(DENSE + 1, np.float32)},
        {"categorical_C": np.zeros(CATEGORICAL + 1, np.uint64)},
    ],
)
def test_a_row_of_another_spec_is_none(redis_url: str, reader: ServedRowReader, change: dict[str, Any]) -> None:
    put(redis_url, "m1", row(**change))
    assert reader.read(["m1"]) == [None]


@pytest.mark.parametrize(
    "value", [b"", b"\xff\x00", b"[" * 100_000, b"[]", b"{}", b'{"dense_D": "!", "categorical_C": 3}']
)
def test_what_others_wrote_is_none(redis_url: str, reader: ServedRowReader, value: bytes) -> None:
    put(redis_url, "m1", row())
    with connect(redis_url) as client:
        (key,) = client.keys("graft:served:*")
        fields = json.loads(client.get(key) or b"")
        client.set(key, value)
        client.lpush(key.replace(b"m1", b"list"), b"of another type")
        client.set(key.replace(b"m1", b"more"), json.dumps(fields | {"more": 1}))
    assert reader.read(["m1", "list", "more"]) == [None] * 3


@pytest.mark.parametrize(
    "odd",
    [
        {"served_at_ms": "noon"},
        {"served_at_ms": float("nan")},
        {"served_at_ms": 10**400},
        {"begins_ms": []},
        {"begins_ms": {"users": None}},
        {"begins_ms": {"users": 10**400}},
        {"version": 3},
        {"request_id": {}},
    ],
)
def test_a_row_with_a_value_that_nobody_serves_is_none(
    redis_url: str, reader: ServedRowReader, odd: dict[str, Any]
) -> None:
    put(redis_url, "m1", row())
    with connect(redis_url) as client:
        (key,) = client.keys("graft:served:*")
        client.set(key, json.dumps(json.loads(client.get(key) or b"") | odd))
    assert reader.read(["m1"]) == [None]


def test_a_redis_that_is_away_is_told() -> None:
    reader = ServedRowReader("redis://127.0.0.1:1", SPEC)
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        reader.read(["m1"])
