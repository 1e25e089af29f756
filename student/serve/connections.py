"""What a client may cost before its request is read: connections, bytes of a head, time to send, a place in the queue.

Above uvicorn's HTTP protocol, since neither it nor Starlette bounds these.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from prometheus_client import Counter
from pydantic_core import to_json
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runtime.errors import GraftError
from student.serve.request_id import request_id_in
from student.serve.requests import refusal

CLOSED = Counter("graft_scorer_closed_connections_total", "Connections that the scorer closed by a limit", ["limit"])

_OTHER_FILES = 128
"""Open files beside connections: models, Redis, logs, threads."""

_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}

TurningAway = Callable[[bytes], bytes | None]
"""Of the URL of a POST: the body of the 503 that answers it at once; None: it is let in."""


class Limits(NamedTuple):
    """Of one scorer process."""

    connections: int = 1_000
    """At a time. One more takes the place of the one that has been idle longest, or is refused."""
    requests: int = 32
    """Under way at a time; more are refused at once, so that those keep their time."""
    head_bytes: int = 16_384
    """Of a request's line and headers."""
    send_seconds: float = 10.0
    """From a connection's begin, or a request's first byte, to its last one; and for the client to take its replies."""


DEFAULT_LIMITS = Limits()


def check_open_files(connections: int) -> None:
    """Raise this process' limit of open files to what so many connections need; GraftError when it may not."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) and hard != soft:
        hard = max(soft, needed)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard < needed:
            raise GraftError(
                f"{connections} connections need {needed} open files, and this process may have {hard}; raise "
                "'ulimit -n' or lower GRAFT_HTTP_CONNECTIONS"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def limited_protocol(limits: Limits, turning_away: TurningAway | None = None) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol with these limits; without `turning_away` every request goes to the application."""

    class Limited(LimitedProtocol):
        bounds = limits
        turned_away = staticmethod(turning_away or (lambda _url: None))

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    bounds = DEFAULT_LIMITS
    turned_away: TurningAway

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_bytes = 0
        self._in_head = self._refused = False
        self._busy_body: bytes | None = None
        """The answer to the request that is being sent, where it is turned away."""
        self._answering: RequestResponseCycle | None = None
        """The request that the application has; `cycle` is the last one that has come."""
        self._deadline: asyncio.TimerHandle | None = None
        self._reply_deadline: asyncio.TimerHandle | None = None
        """There while a part of a reply waits for the client to read."""
        self._since = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return (self.cycle is None or self.cycle.response_complete) and not self._in_head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take a connection, in the place of the longest idle one where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            all_open: Any = self.connections
            idle = [one for one in all_open if one is not self and one.is_idle]
            if not idle:
                self._refuse(503, "connections", self.bounds.connections, "fewer connections at a time")
                return
            longest = min(idle, key=lambda one: one._since)  # noqa: SLF001 - of its own class
            CLOSED.labels("connections").inc()
            longest.give_way()
        self._wait_for_request()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the deadlines, and tell the application: uvicorn does so of the last request that has come alone."""
        self._cancel_deadline()
        self._cancel_reply_deadline()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(error)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Hand what has come to the parser, and count a head that does not end."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._count_head(len(data))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and count it."""
        self._refused = True
        self._cancel_deadline()
        CLOSED.labels("malformed").inc()
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._wait_for_request()

    def on_headers_complete(self) -> None:
        """Let the application begin, unless the head is too large."""
        self._in_head = False
        self._count_head(len(self.url) + sum(len(name) + len(value) for name, value in self.headers))
        if self._refused:
            return
        if self.parser.get_method() == b"POST" and self.is_idle and not (self.pipeline or self.expect_100_continue):
            self._busy_body = self.turned_away(self.url)  # before anything is made for it, so that it costs little
        if self._busy_body is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused and self._busy_body is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has been sent whole."""
        self._cancel_deadline()
        if self._busy_body is not None:
            self._turn_away(self._busy_body)
        elif not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection is idle from now on."""
        self._since = time.monotonic()
        if not self.transport.get_write_buffer_size():
            self._cancel_reply_deadline()
        else:
            self._wait_for_reader()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read as much as it has asked for."""
        self._wait_for_reader()
        super().pause_writing()

    def give_way(self) -> None:
        """Close, at once where the client does not read: else its connection would stay."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _turn_away(self, body: bytes) -> None:
        """Answer with a 503; the connection stays open where the client wants that."""
        self._busy_body = None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.transport.write(_answer(503, body, request_id_in(Headers(raw=self.headers)), keep_alive=keep_alive))
        if keep_alive:
            self.on_response_complete()
        else:
            self.transport.close()

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self.bounds.head_bytes and not self._refused:
            self._refuse(431, "headers", self._head_bytes, f"a head of at most {self.bounds.head_bytes} bytes")

    def _wait_for_request(self) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(self.bounds.send_seconds, self._send_too_slow)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wait_for_reader(self) -> None:
        if self._reply_deadline is None:
            self._reply_deadline = self.loop.call_later(self.bounds.send_seconds, self._read_too_slow)

    def _cancel_reply_deadline(self) -> None:
        if self._reply_deadline is not None:
            self._reply_deadline.cancel()
            self._reply_deadline = None

    def _read_too_slow(self) -> None:
        self._reply_deadline = None
        if self.transport.get_write_buffer_size():
            CLOSED.labels("reply").inc()
            self.transport.abort()

    def _send_too_slow(self) -> None:
        self._refuse(408, "time", self.bounds.send_seconds, f"a request sent in {self.bounds.send_seconds:g} s")

    def _refuse(self, status: int, limit: str, value: float, allowed: str) -> None:
        """Answer with an error, where no answer has begun, and close."""
        self._refused = True
        self._cancel_deadline()
        CLOSED.labels(limit).inc()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            error = refusal(status, limit, value, allowed, f"{limit}: allowed is {allowed}")
            body = to_json({"error": {**error.faults[0], "faults": error.faults}})
            self.transport.write(_answer(status, body, None, keep_alive=False))
        self.transport.close()


def _answer(status: int, body: bytes, request_id: str | None, *, keep_alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *([] if keep_alive else ["connection: close"]),
        *(["retry-after: 1"] if status == 503 else []),
        *([] if request_id is None else [f"x-request-id: {request_id}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
