"""The process of a scorer: uvicorn, one event loop, a server for each listener."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.admission import Admission, Tokens
from student.serve.app import build_apps
from student.serve.connections import (
    DEFAULT_LIMITS,
    LimitedProtocol,
    Limits,
    Listeners,
    check_open_files,
    limited_protocol,
)
from student.serve.swap import ChampionSwap

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10  # for requests in flight at SIGTERM; below the 30 s after which orchestrators kill
_SWITCH_SECONDS = 0.0005  # after which the thread that loads a version lets a request go on; Python's own is 0.005
_KEEP_ALIVE_SECONDS = 75  # above the idle limit of common client pools, so that the client closes first
_CONNECTIONS_APART = 50  # of a listener beside that of the scores; clients who fill one keep nobody from another


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
    admission = Admission(limits, tokens)
    apps = build_apps(swap, stop, admission, sample, apart)
    scores = _Server(_config(apps["scores"], limited_protocol(limits)), stop)
    bounded = limited_protocol(limits._replace(connections=_CONNECTIONS_APART))
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
