"""What a client may cost before its request is read: connections, bytes of a head, time to send and to read.

On top of uvicorn's HTTP protocol, which bounds none of these. It uses names that uvicorn does not promise to keep, so
pyproject.toml pins uvicorn, and a test in tests/student/serve/test_connections.py fails where one is gone.
"""

import asyncio
import resource
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runtime.errors import GraftError
from student.serve.requests import error_body, refusal

Group = Literal["scores", "administration", "metrics"]
"""Endpoints that may have a listener of their own; those that have none are at that of the scores."""

Listeners = Mapping[Group, socket.socket]

_BACKLOG = 2_048
"""Connections that wait to be taken."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int
    settings: str
    """What a user changes to listen elsewhere."""


@contextmanager
def listen(addresses: Mapping[Group, Address]) -> Iterator[Listeners]:
    """Sockets that listen at these addresses, closed with the block; GraftError when one cannot be had."""
    with ExitStack() as stack:
        yield {group: stack.enter_context(_listener(address)) for group, address in addresses.items()}


def _listener(address: Address) -> socket.socket:
    host, port, settings = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise GraftError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another one with {settings}"
        ) from None


CLOSED = Counter("graft_scorer_closed_connections_total", "Connections that the scorer closed by a limit", ["limit"])

_OTHER_FILES = 128
"""Open files beside connections: models, Redis, logs, threads."""


class Limits(NamedTuple):
    """Of one scorer process."""

    connections: int = 1_000
    """At a time. One more takes the place of the one that has been idle longest, or is refused."""
    requests: int = 32
    """Under way at a time; more are refused at once, so that those keep their time."""
    head_bytes: int = 16_384
    """Of a request's line and headers, and of the trailers after a body in chunks."""
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


class LimitedProtocol(HttpToolsProtocol):
    """One connection. The server calls `close_if_late` some times a second."""

    limits = DEFAULT_LIMITS

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_bytes = 0
        """Received since the request's begin or the last part of its body: a head, or trailers."""
        self._send_by: float | None = self.loop.time() + self.limits.send_seconds
        """When the request that is being sent must be here; None while none is."""
        self._unread_since: float | None = None
        """When a part of a reply was first seen to wait for the client to read it."""
        self._idle_since = self.loop.time()
        self._answering: RequestResponseCycle | None = None
        """The request that the application has; uvicorn's `cycle` is the last one that has come."""

    @property
    def is_idle(self) -> bool:
        """Whether the application has no request of it."""
        return self._answering is None or self._answering.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take a connection, in the place of the longest idle one where there are too many."""
        super().connection_made(transport)
        if len(self.connections) <= self.limits.connections:
            return
        everyone: Any = self.connections
        others = [other for other in everyone if other is not self and not other.transport.is_closing()]
        if len(others) < self.limits.connections:
            return
        idle = [other for other in others if other.is_idle]
        if not idle:
            self._refuse(503, "connections", self.limits.connections, "fewer connections at a time")
            return
        CLOSED.labels("connections").inc()
        min(idle, key=lambda other: other._idle_since).give_way()  # noqa: SLF001 - of its own class

    def data_received(self, data: bytes) -> None:
        """Hand what has come to the parser, and refuse a head or trailers that do not end."""
        if self._send_by is None:
            self._send_by = self.loop.time() + self.limits.send_seconds
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self._refuse_head(self._head_bytes)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_bytes, self._send_by = 0, self.loop.time() + self.limits.send_seconds

    def on_headers_complete(self) -> None:
        """Let the application begin, unless the head is too large."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._refuse_head(size)
            raise ValueError("the head is too large")  # so that the parser reads nothing more
        self._head_bytes = 0
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has been sent whole."""
        self._head_bytes, self._send_by = 0, None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection is idle from now on, unless the client has sent another request meanwhile."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and count it."""
        if not self.transport.is_closing():  # by `on_headers_complete`
            CLOSED.labels("malformed").inc()
            super().send_400_response(msg)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the application that its client is gone; uvicorn tells only the last request that has come."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(error)

    def give_way(self) -> None:
        """Close, at once where the client does not read: else its connection would stay."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def close_if_late(self, now: float) -> None:
        """Close where the client has taken too long to send its request or to read its replies; `now`: of the loop."""
        seconds = self.limits.send_seconds
        if self._send_by is not None and now >= self._send_by and not self.transport.is_closing():
            self._refuse(408, "time", seconds, f"a request sent in {seconds:g} s")
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since >= seconds:
            CLOSED.labels("reply").inc()
            self.transport.abort()

    def _refuse_head(self, size: int) -> None:
        self._refuse(431, "headers", size, f"a head of at most {self.limits.head_bytes} bytes")

    def _refuse(self, status: int, limit: str, value: float, allowed: str) -> None:
        """Answer with an error, where no answer has begun, and close."""
        CLOSED.labels(limit).inc()
        if self._answering is None or self._answering.response_complete or not self._answering.response_started:
            body = error_body(refusal(status, limit, value, allowed, f"{limit}: allowed is {allowed}"))
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n"
            head += "retry-after: 1\r\n\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else "\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """The protocol with these limits."""
    return type("Limited", (LimitedProtocol,), {"limits": limits})
