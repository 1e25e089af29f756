"""Whether this process can do its work now, and why not: what `/readyz` tells.

A process is ready when each of its loops has ended a round lately and nothing holds it. Like the metrics, there is one
record per process: `HEALTH`.
"""

import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

STANDSTILL_SECONDS = 60.0
"""A loop's round takes less: the longest waits within one are Kafka's, of 30 s (stream/kafka/connection.py)."""


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
