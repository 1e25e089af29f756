"""The process of a scorer: uvicorn, one event loop, a server for each listener, limits of what a client may cost.

What is here uses names that uvicorn does not promise to keep, so pyproject.toml pins uvicorn, and a test in
tests/student/serve/test_connections.py fails where one is gone.
"""

import asyncio
import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import uvicorn
from prometheus_client import Counter
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.admission import Admission, Tokens
from student.serve.app import build_apps
from student.serve.requests import error_body, refusal
from student.serve.swap import ChampionSwap
from student.serve.workers import Listeners

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10  # for requests in flight at SIGTERM; below the 30 s after which orchestrators kill
_SWITCH_SECONDS = 0.0005  # after which the thread that loads a version lets a request go on; Python's own is 0.005
_KEEP_ALIVE_SECONDS = 75  # above the idle limit of common client pools, so that the client closes first
_CONNECTIONS_APART = 50  # of a listener beside that of the scores; clients who fill one keep nobody from another


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
    """Received without an end of a request's line and headers, or of the trailers after a body in chunks."""
    client_seconds: float = 10.0
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
    """One connection, on top of uvicorn's, which bounds its idle time alone. The server calls `close_if_late`."""

    limits = DEFAULT_LIMITS

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_bytes = 0
        """Received since the begin of a head or of trailers."""
        self._is_sending = True
        """Whether the client is to send (the rest of) a request; at the begin its first one."""
        self._waits_since: float | None = None
        """When the connection was first seen to wait for the client to send, or to read; None: it does not."""
        self._idle_since = self.loop.time()
        """When the last request was here; before the first: when the connection was made."""
        self._answering: RequestResponseCycle | None = None
        """The request that the application has; uvicorn's `cycle` is the last one that has come."""

    @property
    def is_idle(self) -> bool:
        """Whether the application has no request of it."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take a connection, in the place of the longest idle one where there are too many."""
        super().connection_made(transport)
        everyone: Any = self.connections
        if len(everyone) <= self.limits.connections:
            return
        others = [other for other in everyone if other is not self and not other.transport.is_closing()]
        if len(others) < self.limits.connections:
            return
        if idle := [other for other in others if other.is_idle]:
            CLOSED.labels("connections").inc()
            # What it has not read of its replies is dropped: else it would stay.
            min(idle, key=lambda other: other._idle_since).transport.abort()  # noqa: SLF001 - of its own class
        else:
            self._refuse(503, "connections", self.limits.connections, "fewer connections at a time")

    def data_received(self, data: bytes) -> None:
        """Hand what has come to the parser, and refuse a head or trailers that do not end."""
        self._is_sending = True
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
            allowed = f"a head of at most {self.limits.head_bytes} bytes"
            self._refuse(431, "headers", self._head_bytes, allowed)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_sending, self._waits_since = True, None

    def on_headers_complete(self) -> None:
        """Its body begins."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body; trailers may follow."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It has been sent whole."""
        self._head_bytes, self._is_sending, self._waits_since = 0, False, None
        self._idle_since = self.loop.time()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the application that its client is gone; uvicorn tells only the last request that has come."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(error)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and count it."""
        CLOSED.labels("malformed").inc()
        super().send_400_response(msg)

    def close_if_late(self, now: float) -> None:
        """Close where the client has taken too long to send its request or to read its replies; `now`: of the loop."""
        is_unread, seconds = self.transport.get_write_buffer_size() > 0, self.limits.client_seconds
        if not is_unread and (not self._is_sending or self.transport.is_closing()):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since < seconds:
            return
        elif is_unread:
            CLOSED.labels("reply").inc()
            self.transport.abort()
        else:
            self._refuse(408, "time", seconds, f"a request sent in {seconds:g} s")

    def _refuse(self, status: int, limit: str, value: float, allowed: str) -> None:
        """Answer with an error, and close."""
        CLOSED.labels(limit).inc()
        body = error_body(refusal(status, limit, value, allowed, f"{limit}: allowed is {allowed}"))
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        retry = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head += f"content-length: {len(body)}\r\nconnection: close\r\n{retry}\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn, ended by the process' StopSignal instead of signal handlers of its own."""

    def __init__(self, config: uvicorn.Config, stop: StopSignal) -> None:
        super().__init__(config)
        self._stop = stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """No signal handlers."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: close what is late, and say whether to end."""
        now, connections = asyncio.get_running_loop().time(), self.server_state.connections
        for connection in cast("list[LimitedProtocol]", list(connections)):
            connection.close_if_late(now)
        self.should_exit = self.should_exit or self._stop.is_set()
        return await super().on_tick(counter)


def run_server(
    swap: ChampionSwap,
    listeners: Listeners,
    stop: StopSignal,
    limits: Limits = DEFAULT_LIMITS,
    tokens: Tokens | None = None,
    sample: float = 0.0,
) -> None:
    """Serve `swap`'s champion at listening sockets until `stop` is set and the requests in flight are answered.

    Needs neither a version nor Redis to start: it is not ready before the first, and answers from default features
    without the second. The listeners beside that of the scores answer until the last request for scores has been
    answered. GraftError when this process may open too few files.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    apart = [group for group in listeners if group != "scores"]
    check_open_files(limits.connections + _CONNECTIONS_APART * len(apart))
    ended = StopSignal()
    admission = Admission(limits.requests, tokens)
    apps = build_apps(swap, stop, admission, sample, apart)
    scores = _Server(_config(apps["scores"], _limited(limits)), stop)
    bounded = _limited(limits._replace(connections=_CONNECTIONS_APART))
    beside = [(_Server(_config(apps[group], bounded), ended), listeners[group]) for group in apart]

    async def serve() -> None:
        tasks = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in beside]
        try:
            await scores.serve(sockets=[listeners["scores"]])
        finally:
            ended.set()
            await asyncio.gather(*tasks)

    for group, listener in listeners.items():
        _log.info("serving %s at http://%s:%d", group, *listener.getsockname()[:2])
    with asyncio.Runner(loop_factory=scores.config.get_loop_factory()) as runner:
        runner.run(serve())
    if not scores.started:
        raise GraftError("the scorer could not start; the log lines above say why")


def _limited(limits: Limits) -> type[LimitedProtocol]:
    return type("Limited", (LimitedProtocol,), {"limits": limits})


def _config(app: ASGIApp, protocol: type[LimitedProtocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="auto",
        log_config=None,
        log_level="error",  # a warning is of one request that is no HTTP: who sends many would fill the log
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
