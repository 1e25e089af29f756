"""Whether this process can do its work now, and why not; `/healthz`, `/readyz` and `/metrics` answer it.

A process is ready when each of its loops has ended a round lately and nothing holds it. Like the metrics, there is one
record per process: `HEALTH`.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

STANDSTILL_SECONDS = 60.0
"""A loop's round takes less: the longest waits within one are Kafka's, of 30 s (stream/kafka/connection.py)."""

_DEADLINE_SECONDS = 5.0  # from the connection to the last byte of the reply
_MOST_REQUEST_BYTES = 8 * 1024
_MOST_CONNECTIONS = 32
_PATHS = (b"/healthz", b"/readyz", b"/metrics")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Health:
    """Collects what stops the work of one process. `seconds` is a clock that never jumps."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()  # the loops and the server are threads of their own
        self._ended_at: dict[str, float | None] = {}
        self._holds: WeakKeyDictionary[object, str] = WeakKeyDictionary()  # who is gone waits for nothing

    def begin(self, loop: str) -> None:
        """A loop of this name begins; the process is not ready before the first round's end."""
        with self._lock:
            self._ended_at[loop] = None

    def round_ended(self, loop: str) -> None:
        """The loop has done a round: its work advances, or there is none."""
        with self._lock:
            self._ended_at[loop] = self._seconds()

    def hold(self, holder: object, reason: str) -> None:
        """The process is not ready because of `reason`, until the `holder` releases it."""
        with self._lock:
            self._holds[holder] = reason

    def release(self, holder: object) -> None:
        """The holder's reason is over; does nothing where it has none."""
        with self._lock:
            self._holds.pop(holder, None)

    def reasons(self) -> list[str]:
        """Why the process is not ready, one sentence each; empty when it is."""
        with self._lock:
            return [*self._holds.values(), *(self._standing() if self._ended_at else ["the process is starting"])]

    def _standing(self) -> list[str]:
        now, found = self._seconds(), []
        for loop, ended_at in self._ended_at.items():
            if ended_at is None:
                found.append(f"the {loop} loop is starting")
            elif now - ended_at > STANDSTILL_SECONDS:
                found.append(f"the {loop} loop stands still since {now - ended_at:.0f} s")
        return found


HEALTH = Health()
"""This process's."""


class _Reply(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"

    def to_bytes(self) -> bytes:
        head = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
            *(["Allow: GET"] if self.status == 405 else []),
        ]
        return "\r\n".join([*head, "", ""]).encode() + self.body


class HealthServer:
    """Answers at ``http://host:port`` from a thread of its own, until `close` or the process ends.

    A request has a deadline and a bounded size, and of too many connections the oldest gives way: no client can block
    the others or make the process grow. OSError when it cannot listen there.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", health: Health = HEALTH) -> None:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._socket = socket.create_server((host, port), family=family)
        self._health = health
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._connections: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._converse, sock=self._socket, limit=_MOST_REQUEST_BYTES)
        await self._closing.wait()
        server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection; drop the connection when that takes too long or makes no sense."""
        self._connections[writer] = None
        if len(self._connections) > _MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head.split(b"\r\n", 1)[0]).to_bytes())
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            pass
        finally:
            writer.transport.abort()
            self._connections.pop(writer, None)

    def _reply(self, request_line: bytes) -> _Reply:
        words = request_line.split(b" ")
        if len(words) != 3:
            return _json(400, {"error": "this is no HTTP request"})
        method, target, _ = words
        path = target.split(b"?", 1)[0]
        if path not in _PATHS:
            return _json(404, {"error": "allowed is GET /healthz, GET /readyz, GET /metrics"})
        if method != b"GET":
            return _json(405, {"error": "allowed is GET"})
        if path == b"/metrics":
            return _Reply(200, generate_latest(), CONTENT_TYPE_LATEST)
        return self._readiness() if path == b"/readyz" else _json(200, {"status": "alive"})

    def _readiness(self) -> _Reply:
        if reasons := self._health.reasons():
            return _json(503, {"status": "not ready", "reason": "; ".join(reasons)})
        return _json(200, {"status": "ready"})


def _json(status: int, content: dict[str, str]) -> _Reply:
    return _Reply(status, json.dumps(content).encode())
