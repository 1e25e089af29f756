"""A process's loop in a thread of a test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runtime.telemetry import StopSignal


@contextmanager
def in_thread(loop: Callable[[StopSignal], Any]) -> Iterator[None]:
    """Run `loop` until the end of the block; AssertionError when it does not end within 30 s of the stop."""
    stop = StopSignal()
    thread = threading.Thread(target=loop, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
