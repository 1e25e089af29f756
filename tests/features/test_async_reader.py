"""The scorer's reader: never late, never mixed up, and back by itself."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from features.online.async_reader import AsyncOnlineReader
from features.online.item_table import TableLimits
from features.online.redis_layout import EntityLayout
from runtime.redis import connect

SIZE = 100
MISSES = {"users:number": [0, 0], "items:number": [0, 0]}
"""Defaults."""
NO_MEMORY = TableLimits(max_age_seconds=0)
"""Each read asks Redis for all of its items."""


def run(
    redis_url: str,
    spec: Any,
    use: Callable[[AsyncOnlineReader], Awaitable[None]],
    timeout: float = 2.0,
    limits: TableLimits = NO_MEMORY,
) -> None:
    """`use` a reader on a loop of its own, and close it."""

    async def session() -> None:
        reader = AsyncOnlineReader(spec, redis_url, timeout, limits)
        try:
            await use(reader)
        finally:
            await reader.close()
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    asyncio.run(session())


async def read(reader: AsyncOnlineReader, user_id: int, item_ids: list[int]) -> tuple[dict[str, list[float]], bool]:
    """The encoded columns of a request, and whether it is degraded."""
    rows = await reader.read(user_id, item_ids, {})
    return dict(zip(reader.spec.dense_names, rows.batch.dense_BD.T.tolist(), strict=True)), rows.degraded


async def until_whole(reader: AsyncOnlineReader, seconds: float = 10.0) -> Any:
    """The first columns that are not degraded."""
    async with asyncio.timeout(seconds):
        while True:
            columns, degraded = await read(reader, 7, [1, 2])
            if not degraded:
                return columns
            await asyncio.sleep(0.01)


def test_concurrent_reads_on_one_connection_get_their_own_answers(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        async def one(user: int) -> None:
            items = [(user + n) % SIZE for n in range(1 + user % 7)]
            columns, degraded = await read(reader, user, items)
            assert not degraded
            assert columns == {"users:number": [user] * len(items), "items:number": items}

        await asyncio.gather(*(one(user) for user in range(SIZE)))
        with connect(own_redis.url) as client:
            assert int(client.info("clients")["connected_clients"]) == 2

    run(own_redis.url, small_spec, use)


def test_a_killed_redis_degrades_at_once_and_its_return_is_noticed(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        own_redis.process.kill()
        own_redis.process.wait()
        loop = asyncio.get_running_loop()
        for _ in range(20):
            before = loop.time()
            columns, degraded = await read(reader, 7, [1, 2, 3])
            assert degraded
            assert columns == {"users:number": [0] * 3, "items:number": [1, 2, 0]}, "1 and 2 have been read before"
            assert loop.time() - before < 0.5, "a degraded read does not wait for its time limit (2 s)"

        await asyncio.to_thread(own_redis.restart)
        await asyncio.to_thread(store_small, own_redis.url, SIZE)
        assert await until_whole(reader) == {"users:number": [7, 7], "items:number": [1, 2]}

    run(own_redis.url, small_spec, use)


def test_an_outage_of_redis_is_one_warning_and_one_line_when_it_is_over(own_redis, small_spec, store_small, caplog):
    caplog.set_level(logging.INFO, "runtime.outage")

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        own_redis.process.kill()
        own_redis.process.wait()
        await asyncio.sleep(0.6)  # several tries
        await asyncio.to_thread(own_redis.restart)
        await until_whole(reader)

    run(own_redis.url, small_spec, use)
    away, back = (record.message for record in caplog.records if record.name == "runtime.outage")
    assert away == f"Redis at {own_redis.url} ended the connection; answers are degraded"
    assert back.startswith("redis is back after seconds=")


def test_a_redis_that_hangs_costs_a_read_its_time_limit_and_mixes_no_replies(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        os.kill(own_redis.process.pid, signal.SIGSTOP)
        try:
            before = asyncio.get_running_loop().time()
            late = await asyncio.gather(*(read(reader, user, [50 + user, 0]) for user in range(20)))
            assert asyncio.get_running_loop().time() - before < 0.5
            assert all(degraded and columns == MISSES for columns, degraded in late)
        finally:
            os.kill(own_redis.process.pid, signal.SIGCONT)
        await until_whole(reader)
        for user in range(20, 40):
            columns, degraded = await read(reader, user, [user, 1])
            assert degraded or columns == {"users:number": [user, user], "items:number": [user, 1]}

    run(own_redis.url, small_spec, use, timeout=0.2)


def test_a_connection_that_stays_silent_is_given_up(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        loop = asyncio.get_running_loop()
        os.kill(own_redis.process.pid, signal.SIGSTOP)
        try:
            start = loop.time()
            waited = 1.0
            while loop.time() - start < 5 and waited > 0.04:
                before = loop.time()
                assert (await read(reader, 1, [1, 2]))[1]
                waited = loop.time() - before
                await asyncio.sleep(0.02)
            assert waited < 0.04, "with the connection given up, a read is degraded at once"
        finally:
            os.kill(own_redis.process.pid, signal.SIGCONT)
        assert await until_whole(reader) == {"users:number": [7, 7], "items:number": [1, 2]}

    run(own_redis.url, small_spec, use, timeout=0.05)


def test_a_cancelled_read_leaves_the_next_ones_right(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        for user in range(30):
            abandoned = asyncio.create_task(read(reader, user, [user]))
            await asyncio.sleep(0)
            abandoned.cancel()
            columns, _ = await read(reader, user + 1, [user + 2])
            assert columns == {"users:number": [user + 1], "items:number": [user + 2]}

    run(own_redis.url, small_spec, use)


def test_a_key_of_another_type_is_a_miss_of_its_own_read_alone(own_redis, small_spec, store_small):
    store_small(own_redis.url, SIZE)
    with connect(own_redis.url) as client:
        client.set(EntityLayout("small", "user_id", "int", []).key(1_000), "no hash")

    async def use(reader: AsyncOnlineReader) -> None:
        await until_whole(reader)
        wrong, right = await asyncio.gather(read(reader, 1_000, [1, 2]), read(reader, 7, [1, 2]))
        assert wrong == ({"users:number": [0, 0], "items:number": [1, 2]}, False)
        assert right == ({"users:number": [7, 7], "items:number": [1, 2]}, False)

    run(own_redis.url, small_spec, use)


def test_it_logs_in_and_chooses_the_database(own_redis, small_spec, store_small):
    with connect(own_redis.url) as client:
        client.config_set("requirepass", "s3cret")
        client.execute_command("ACL", "SETUSER", "reader", "on", ">other", "~*", "+@all")
    host = own_redis.url.removeprefix("redis://").removesuffix("/0")
    store_small(f"redis://:s3cret@{host}/3", SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        assert await until_whole(reader) == {"users:number": [7, 7], "items:number": [1, 2]}

    run(f"redis://:s3cret@{host}/3", small_spec, use)
    run(f"redis://reader:other@{host}/3", small_spec, use)


def test_a_wrong_password_degrades_and_shows_no_secret(own_redis, small_spec, caplog):
    with connect(own_redis.url) as client:
        client.config_set("requirepass", "s3cret")
    host = own_redis.url.removeprefix("redis://")

    async def use(reader: AsyncOnlineReader) -> None:
        for _ in range(3):
            assert (await read(reader, 7, [1, 2])) == (MISSES, True)
        await asyncio.sleep(1.0)  # it tries again several times

    run(f"redis://:wr0ng@{host}", small_spec, use)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 2
    assert warned[0].startswith(f"Redis at redis://{host} refuses: WRONGPASS")
    assert warned[1].startswith(f"Redis at redis://{host} does not let us in")
    assert "wr0ng" not in caplog.text
    assert "s3cret" not in caplog.text


def test_without_any_redis_a_read_is_degraded_and_a_closed_reader_stays_closed(small_spec):
    async def use(reader: AsyncOnlineReader) -> None:
        assert (await read(reader, 7, [1, 2])) == (MISSES, True)
        await reader.close()
        assert (await read(reader, 7, [1, 2])) == (MISSES, True)

    run("redis://127.0.0.1:1/0", small_spec, use)


@pytest.mark.parametrize("size", [1, 1000])
def test_a_request_of_any_size_is_answered(own_redis, small_spec, store_small, size):
    store_small(own_redis.url, SIZE)

    async def use(reader: AsyncOnlineReader) -> None:
        columns, degraded = await read(reader, 7, [n % 128 for n in range(size)])
        assert not degraded
        assert columns["items:number"] == [n % 128 if n % 128 < SIZE else 0 for n in range(size)]

    run(own_redis.url, small_spec, use)
