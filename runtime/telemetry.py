"""Logs and the stop signal of one process.

Metric objects are declared at the top of the module that sets them, with `prometheus_client`; runtime/health_server.py
exposes them. Log lines go to standard error as ``time level logger message key=value``, or as JSON (log_format.py).
"""

import logging
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from runtime.log_format import LogFormat, formatter, log_what_ends_the_process


def configure_logging(level: str = "INFO", log_format: LogFormat = "text", process: str = "") -> None:
    """Send this process's log lines to standard error; foreign libraries only from WARNING on.

    `process`: what JSON lines call it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format, process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if log_format == "json":
        log_what_ends_the_process()
    # kafka-python logs an ERROR line at every disconnect and retries by itself.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # It tells of each try at a collector that is away; that a batch is lost is an ERROR.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    for name in ("feast", "uvicorn.access", "asyncio", "numba", "botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)


_SLICE_SECONDS = 0.2
"""Python looks at a signal that came just before a blocking call only after it."""


class StopSignal:
    """Set by SIGTERM or SIGINT; a loop asks `is_set()` between batches or sleeps in `wait(seconds)`.

    A lock alone. A threading.Event waits for ever where a signal comes as a wait begins: its `set` waits for a lock
    that the `wait` of the same thread holds. A queue.SimpleQueue does, before Python 3.13, where the handler of any
    signal outlasts the timeout of its `get`.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._until_set = threading.Lock()
        """Held until the first `set`; then only for a moment, by one who waits."""
        self._until_set.acquire()

    def install(self) -> "StopSignal":
        """Take over SIGTERM and SIGINT; only from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def set(self) -> None:
        """Ask the loop to end after its current batch."""
        self._is_set = True
        self._let_go()

    def is_set(self) -> bool:
        """Whether the loop should end."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleep for at most `seconds`; True as soon as a stop is asked for, at the latest 0.2 s after."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            if self._until_set.acquire(timeout=min(left, _SLICE_SECONDS)):
                self._let_go()  # for other threads that wait
        return self._is_set

    def _let_go(self) -> None:
        with suppress(RuntimeError):  # another one has: a second `set`, or one in the middle of a wait
            self._until_set.release()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.set()
