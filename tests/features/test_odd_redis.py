"""A server that speaks Redis' protocol and answers a read with what is no reply to it."""

import asyncio
from typing import Any

import hiredis
import pytest

from features.online.async_reader import AsyncOnlineReader


class OddRedis:
    """Lets everybody in, and gives each HMGET one answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                writer.write(self._answer if command[0] == b"HMGET" else b"+OK\r\n")
        writer.close()


ODD = {
    "an integer": b":7\r\n",
    "zero": b":0\r\n",
    "a text": b"+QUEUED\r\n",
    "bytes": b"$2\r\n\x12\x05\r\n",
    "no values": b"*0\r\n",
    "too many values": b"*99\r\n" + b"$-1\r\n" * 99,
    "many integers": b"*%d\r\n" % 99 + b":1\r\n" * 99,
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "a truth": b"#t\r\n",
    "an error": b"-MOVED 3999 127.0.0.1:6381\r\n",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_what_is_no_reply_to_a_read_degrades_it(small_spec: Any, answer: bytes) -> None:
    async def body() -> None:
        odd = OddRedis(answer)
        server = await asyncio.start_server(odd.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader = AsyncOnlineReader(small_spec, f"redis://127.0.0.1:{port}/0", timeout_seconds=5.0)
        try:
            defaults = small_spec.encode({f.name: [None] * 2 for f in small_spec.features}).dense_BD
            for _ in range(2):
                rows = await reader.read(1, [10, 11], {})
                assert rows.degraded
                assert rows.batch.dense_BD.tolist() == defaults.tolist()
                dated, degraded = await reader.read_dated(1, [10, 11], {})
                assert degraded
                assert all(begin_ms is None for begins in dated.begins_ms.values() for begin_ms in begins)
        finally:
            await reader.close()
            server.close()

    asyncio.run(body())
