"""A load generator: requests that are due at fixed times over a few kept connections, in one thread.

A latency counts from the moment a request was due, so that a stall of the server is seen by all requests that were due
meanwhile (no coordinated omission).
"""

import selectors
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

CONNECTIONS = 16


class Outcome(NamedTuple):
    """Of one run: milliseconds from due time to last byte of the replies that were 200, and how many were not."""

    milliseconds: list[float]
    failures: int

    def percentile(self, p: float) -> float:
        return float(np.percentile(self.milliseconds, p))


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.reply = b""

    def take(self) -> bool | None:
        """Whether the reply is whole and a 200; None while it is not whole."""
        self.reply += self.socket.recv(262_144)
        head = self.reply.find(b"\r\n\r\n")
        if head < 0 or not self._is_whole(self.reply[:head].lower(), head + 4):
            return None
        ok = self.reply.startswith(b"HTTP/1.1 200")
        self.reply = b""
        return ok

    def _is_whole(self, head: bytes, body: int) -> bool:
        if b"content-length: " not in head:
            return self.reply.endswith(b"\r\n0\r\n\r\n")  # in chunks, as Ray Serve replies
        return len(self.reply) >= body + int(head.split(b"content-length: ")[1].split(b"\r\n")[0])


def request(path: str, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body


def constant_rate(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = CONNECTIONS
) -> Outcome:
    """`rate` requests a second for so many seconds; the first half second is not counted."""
    return _run(port, requests, seconds, rate, connections)


def saturated(port: int, requests: Sequence[bytes], seconds: float, connections: int = CONNECTIONS) -> Outcome:
    """Each connection asks again as soon as it is answered; the first half second is not counted."""
    outcome = _run(port, requests, seconds, None, connections)
    assert not outcome.failures, f"{outcome.failures} requests failed"
    return outcome


def closed_loop(port: int, requests: Sequence[bytes], seconds: float, connections: int = CONNECTIONS) -> float:
    """Replies a second of `saturated`."""
    return len(saturated(port, requests, seconds, connections).milliseconds) / (seconds - WARM_UP_SECONDS)


def with_wrk(port: int, requests: Sequence[bytes], seconds: float, connections: int = CONNECTIONS) -> float:
    """Replies a second of the same loop by wrk, which runs beside this process and takes little of a core."""
    with tempfile.TemporaryDirectory() as folder:
        bodies, script = Path(folder, "bodies"), Path(folder, "ask.lua")
        bodies.write_bytes(b"".join(request.partition(b"\r\n\r\n")[2] + b"\n" for request in requests))
        script.write_text(_WRK.replace("BODIES", str(bodies)))
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    return float(said.partition("Requests/sec:")[2].split()[0])


_WRK = """
local requests, sent = {}, 0
for body in io.lines("BODIES") do
  requests[#requests + 1] = wrk.format("POST", "/score", {["content-type"] = "application/json"}, body)
end
request = function()
  sent = sent + 1
  return requests[sent % #requests + 1]
end
"""
WARM_UP_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0


def _run(
    port: int, requests: Sequence[bytes], seconds: float, rate: float | None, connections: int = CONNECTIONS
) -> Outcome:
    outcome, failures = Outcome([], 0), 0
    with selectors.DefaultSelector() as selector:
        idle = deque(_Connection("127.0.0.1", port) for _ in range(connections))
        everyone = list(idle)
        for one in idle:
            selector.register(one.socket, selectors.EVENT_READ, one)
        start = time.perf_counter()
        end, sent, under_way = start + seconds, 0, 0
        while True:
            now = time.perf_counter()
            due = max(now, start) if rate is None else start + sent / rate
            if due >= end and not under_way:
                break
            assert now < end + _PATIENCE_SECONDS, f"{rate} requests a second are far too many: {sent} sent"
            while idle and due <= now and due < end:
                one = idle.popleft()
                one.due = due
                one.socket.send(requests[sent % len(requests)])
                sent, under_way = sent + 1, under_way + 1
                due = now if rate is None else start + sent / rate
            wait = max(0.0, due - time.perf_counter()) if idle and due < end else None
            for key, _ in selector.select(wait):
                ok = key.data.take()
                if ok is not None:
                    now = time.perf_counter()
                    if ok and key.data.due - start >= WARM_UP_SECONDS:
                        outcome.milliseconds.append((now - key.data.due) * 1e3)
                    failures += not ok
                    under_way -= 1
                    idle.append(key.data)
        for one in everyone:
            one.socket.close()
    return outcome._replace(failures=failures)
