"""The connection to Redis as a task of its own: what nobody can time from outside."""

import asyncio

from features.online.pipeline import Connection
from runtime.redis import parse_url


def test_a_connection_that_is_refused_while_it_is_closed_ends(monkeypatch):
    """`asyncio.wait_for` of Python 3.11 swallows a cancellation that comes when what it waits for has just ended."""

    async def body():
        refused = asyncio.get_running_loop().create_future()
        connection = Connection(parse_url("redis://127.0.0.1:1/0"), lambda _: None)

        async def connect():
            await refused

        monkeypatch.setattr(connection, "_connect", connect)
        beginning = asyncio.create_task(connection.begin(5))
        await asyncio.sleep(0.01)
        refused.set_exception(ConnectionRefusedError())
        await asyncio.sleep(0)
        await asyncio.wait([asyncio.create_task(connection.close())], timeout=2)
        ended = connection._keeper.done()
        connection._keeper.cancel()
        await asyncio.wait([beginning, connection._keeper])
        return ended

    assert asyncio.run(body())
