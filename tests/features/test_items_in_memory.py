"""The scorer's reader keeps items in memory, and Redis tells it which have changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from features.online.async_reader import ITEMS, AsyncOnlineReader
from features.online.item_table import TableLimits
from features.online.redis_layout import EntityLayout, field_name
from lab.embedded import EmbeddedRedis
from runtime.redis import connect

SIZE = 10
YEARS = TableLimits(max_age_seconds=1e9)
USER = EntityLayout("small", "user_id", "int", [])
ITEM = EntityLayout("small", "item_id", "int", [])
NUMBER = field_name("items", "number")


def run(url: str, spec: Any, use: Callable[[AsyncOnlineReader], Awaitable[None]], limits: TableLimits = YEARS) -> None:
    async def session() -> None:
        reader = AsyncOnlineReader(spec, url, 5.0, limits)
        try:
            await use(reader)
        finally:
            await reader.close()

    asyncio.run(session())


async def items(reader: AsyncOnlineReader, *ids: int) -> list[float]:
    """The number of each item, which is not degraded."""
    rows = await reader.read(7, ids, {})
    assert not rows.degraded
    return list(rows.batch.dense_BD[:, 1])


def reads(url: str) -> int:
    """How many HMGET the server has answered."""
    with connect(url) as client:
        return int(client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"])


def by_source() -> dict[str, float]:
    return {source: ITEMS.labels(source)._value.get() for source in ("memory", "redis", "old", "default")}


@pytest.fixture
def url(own_redis: EmbeddedRedis, store_small: Any) -> str:
    store_small(own_redis.url, SIZE)
    return own_redis.url


def test_items_are_read_once_and_the_user_each_time(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        before, counted = reads(url), by_source()
        assert await items(reader, 1, 2, 1) == [1, 2, 1]
        assert (await reader.read(7, [1, 2], {})).batch.dense_BD.tolist() == [[7, 1], [7, 2]]
        assert (await reader.read(8, [1, 2], {})).batch.dense_BD.tolist() == [[8, 1], [8, 2]]
        assert reads(url) == before + 3 + 2
        assert await items(reader, 2, 1, 3, 99) == [2, 1, 3, 0]
        assert await items(reader, 99, 3) == [0, 3], "that there is nothing is remembered, too"
        assert reads(url) == before + 3 + 2 + 3 + 1
        now = by_source()
        assert {name: now[name] - counted[name] for name in now} == {"memory": 8, "redis": 5, "old": 0, "default": 0}

    run(url, small_spec, use)


CHANGES: list[tuple[str, Callable[[Any], object], float]] = [
    ("written", lambda client: client.hset(ITEM.key(1), NUMBER, b"\x20\x05"), 5),
    ("deleted", lambda client: client.delete(ITEM.key(1)), 0),
    ("emptied", lambda client: client.hdel(ITEM.key(1), NUMBER), 0),
    ("made another type", lambda client: client.pipeline().delete(ITEM.key(1)).set(ITEM.key(1), "x").execute(), 0),
    ("expired", lambda client: client.pexpire(ITEM.key(1), 1), 0),
    ("flushed", lambda client: client.flushdb(), 0),
    ("flushed with all", lambda client: client.flushall(), 0),
]


@pytest.mark.parametrize(("change", "value"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_changes_in_redis_is_read_anew(
    url: str, small_spec: Any, change: Callable[[Any], object], value: float
) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        with connect(url) as client:
            for _ in range(2):  # the second change is told only if the item was tracked again
                client.delete(ITEM.key(1))
                client.hset(ITEM.key(1), NUMBER, b"\x20\x01")
                await until(reader, 1, 1)
                change(client)
                client.hset(USER.key(7), field_name("users", "number"), b"\x20\x07")
                await until(reader, 1, value)

    run(url, small_spec, use)


async def until(reader: AsyncOnlineReader, item: int, value: float, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while await items(reader, item) != [value]:  # noqa: ASYNC110 - what is awaited is a push of the server
            await asyncio.sleep(0.001)


def test_an_item_that_comes_into_being_is_seen(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        assert await items(reader, 77) == [0]
        with connect(url) as client:
            client.hset(ITEM.key(77), NUMBER, b"\x20\x07")
        await until(reader, 77, 7)

    run(url, small_spec, use)


def test_without_redis_items_in_memory_keep_their_values_and_are_read_anew_when_it_is_back(
    own_redis: EmbeddedRedis, url: str, small_spec: Any, store_small: Any
) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        assert await items(reader, 1, 2) == [1, 2]
        own_redis.process.kill()
        own_redis.process.wait()
        counted = by_source()
        for _ in range(3):
            rows = await reader.read(7, [2, 3, 1], {})
            assert rows.degraded
            assert rows.batch.dense_BD.tolist() == [[0, 2], [0, 0], [0, 1]]
        now = by_source()
        told = {name: now[name] - counted[name] for name in now}
        assert (told["memory"] + told["old"], told["redis"], told["default"]) == (6, 0, 3)
        await asyncio.to_thread(own_redis.restart)
        await asyncio.to_thread(store_small, url, SIZE)
        with connect(url) as client:
            client.hset(ITEM.key(1), NUMBER, b"\x20\x09")  # nobody tells of it: it was tracked by another connection
        async with asyncio.timeout(10):
            while (await reader.read(7, [1], {})).degraded:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await items(reader, 1, 2) == [9, 2]

    run(url, small_spec, use)


def test_a_connection_that_the_server_ends_makes_all_items_old(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        assert await items(reader, 1) == [1]
        with connect(url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.hset(ITEM.key(1), NUMBER, b"\x20\x09")
        async with asyncio.timeout(10):
            while (await reader.read(7, [1], {})).degraded:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await items(reader, 1) == [9]

    run(url, small_spec, use)


def test_where_redis_may_not_tell_an_item_is_read_anew_when_it_is_old(
    url: str, small_spec: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(url) as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-client|tracking")
    own = url.replace("redis://", "redis://reader:secret@")

    async def use(reader: AsyncOnlineReader) -> None:
        assert await items(reader, 1) == [1]
        with connect(url) as client:
            client.hset(ITEM.key(1), NUMBER, b"\x20\x09")
        assert await items(reader, 1) == [1]
        await until(reader, 1, 9)

    with caplog.at_level(logging.WARNING):
        run(own, small_spec, use, TableLimits(max_age_seconds=0.5))
    (line,) = [record.message for record in caplog.records if "does not tell of changes" in record.message]
    assert "secret" not in line


def test_no_item_is_kept_at_an_age_of_zero(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        before = reads(url)
        for _ in range(3):
            assert await items(reader, 1, 2) == [1, 2]
        assert reads(url) == before + 9

    run(url, small_spec, use, TableLimits(max_age_seconds=0))


def test_few_places_for_many_items_are_no_fault(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        for _ in range(3):
            assert await items(reader, 1, 2, 3, 4, 5, 1) == [1, 2, 3, 4, 5, 1]
            assert await items(reader, 5, 6) == [5, 6]
        assert len(reader.items) == 3

    run(url, small_spec, use, TableLimits(items=3, max_age_seconds=1e9))


def test_a_connection_asks_only_for_changes_of_items(url: str, small_spec: Any) -> None:
    async def use(reader: AsyncOnlineReader) -> None:
        assert await items(reader, 1) == [1]
        with connect(url) as client:
            assert client.info("stats")["tracking_total_keys"] == 1

    run(url, small_spec, use)
