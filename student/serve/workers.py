"""A scorer's listening sockets, the processes behind them where there are several, and the parent that keeps them.

The workers share the listening sockets, the pages of a version's tensors, and a folder in which each counts its
metrics. All else is a worker's own: its event loop, its limits, the items in its memory, its connection to Redis.
"""

import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client.multiprocess import mark_process_dead

from runtime.child import start_child, stop_child
from runtime.errors import GraftError
from runtime.telemetry import StopSignal

if TYPE_CHECKING:
    import subprocess

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


_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable: where it is set, a process counts in files of that folder."""

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_STEADY_SECONDS = 5.0  # a worker that has run for so long did not fail at its start
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.2, 30.0
_HOPELESS = 3  # starts in a row that failed, before the first steady worker
_STOP_SECONDS = 15.0  # above the 10 s that a worker gives its requests; below the 30 s after which orchestrators kill


class _Worker:
    """One of the processes, started anew whenever it ends, each time later."""

    def __init__(self, argv: Sequence[str], files: Sequence[int], metrics_folder: str) -> None:
        self.failures = 0
        """Starts in a row that failed."""
        self.has_been_steady = False
        self._argv = argv
        self._files = files
        self._folder = metrics_folder
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self, now: float) -> None:
        """Start the process if it is due, and note whether it runs."""
        if self._process is None:
            if now >= self._start_at:
                environment = {**os.environ, _METRICS_FOLDER: self._folder}
                self._process = start_child(self._argv, env=environment, files=self._files)
                self._start_at = now
            return
        is_steady = now - self._start_at >= _STEADY_SECONDS
        if is_steady:
            self.failures, self.has_been_steady = 0, True
        code = self._process.poll()
        if code is not None:
            self.failures += not is_steady
            wait_seconds = min(_FIRST_WAIT_SECONDS * 2**self.failures, _LONGEST_WAIT_SECONDS)
            _log.error("a worker ended (exit code %d); it is started again in seconds=%.1f", code, wait_seconds)
            mark_process_dead(self._process.pid, self._folder)  # type: ignore[no-untyped-call]
            self._process, self._start_at = None, now + wait_seconds

    def ask_to_end(self) -> None:
        """Let it answer its requests, and end."""
        if self._process is not None:
            self._process.terminate()

    def end(self, seconds: float) -> None:
        """End it, by force after so many seconds."""
        if self._process is not None:
            stop_child(self._process, seconds)


def run_workers(argv: Sequence[str], count: int, listeners: Listeners, stop: StopSignal) -> None:
    """Keep `count` processes running until `stop` is set and each has answered its requests.

    Each is `argv` with ``--listener GROUP NUMBER`` for each listening socket, which is that open file. Closes the
    listeners. GraftError when no worker starts.
    """
    files = [listener.fileno() for listener in listeners.values()]
    for group, listener in listeners.items():
        argv = [*argv, "--listener", group, str(listener.fileno())]
        _log.info("serving %s at http://%s:%d with %d workers", group, *listener.getsockname()[:2], count)
    with tempfile.TemporaryDirectory(prefix="graft-scorer-") as folder:
        workers = [_Worker(argv, files, folder) for _ in range(count)]
        try:
            _keep_running(workers, stop)
        finally:
            for listener in listeners.values():
                listener.close()
            deadline = time.monotonic() + _STOP_SECONDS
            for worker in workers:
                worker.ask_to_end()
            for worker in workers:
                worker.end(max(0.0, deadline - time.monotonic()))


def _keep_running(workers: Sequence[_Worker], stop: StopSignal) -> None:
    while True:
        for worker in workers:
            worker.keep_running(time.monotonic())
        if not any(w.has_been_steady for w in workers) and all(w.failures >= _HOPELESS for w in workers):
            raise GraftError("no worker of the scorer could start; the log lines above say why")
        if stop.wait(_LOOK_SECONDS):
            return
