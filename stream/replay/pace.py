"""When each event of a replay is due: at once, so many a second, or as fast as the events themselves came."""

import time
from collections.abc import Callable, Iterator

from stream.replay.event_file import FileEvent

Pace = Callable[[FileEvent], float]
"""Seconds after the replay's start at which an event is due; it is asked for every event, in their order."""

_SLOT_SECONDS = 0.1  # events that are due within it are sent together
_DAY_MS = 86_400_000


def at_once(_event: FileEvent) -> float:
    """Every event is due now."""
    return 0.0


class Rate:
    """So many events per second."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._events = 0

    def __call__(self, _event: FileEvent) -> float:
        """The event after all that were asked for."""
        self._events += 1
        return (self._events - 1) / self._per_second


class EventTime:
    """`speed` times as fast as the event times say; 1: with the pauses that the events had.

    A gap of more than a day counts as a day, so that one wrong time does not hold the others up. An event that is
    earlier than one before it, without a time, or ahead of our clock is due at once.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._reached_ms: int | None = None
        self._waited_ms = 0

    def __call__(self, event: FileEvent) -> float:
        """After the gaps between all events so far."""
        at = event.time_ms
        if at is not None and at <= time.time_ns() // 1_000_000:
            self._take(at)
        return self._waited_ms / 1000 / self._speed

    def _take(self, at_ms: int) -> None:
        gap_ms = at_ms - (at_ms if self._reached_ms is None else self._reached_ms)
        self._waited_ms += min(max(0, gap_ms), _DAY_MS)
        if self._reached_ms is None or gap_ms > 0 or gap_ms < -_DAY_MS:
            self._reached_ms = at_ms


def due_batches(events: Iterator[FileEvent], pace: Pace, most: int) -> Iterator[tuple[float, list[FileEvent]]]:
    """Events that are due at about one time, `most` at a time, with the seconds after the start at which they are.

    An impression goes with the feedback that follows it at once, unless that would double the batch: a sender that has
    to wait between the two for long would find the impression closed.
    """
    due, batch = 0.0, list[FileEvent]()
    for event in events:
        at = pace(event)
        belongs = bool(batch) and event.kind == "feedback" and event.key == batch[-1].key
        is_full = len(batch) >= most and not (belongs and len(batch) < 2 * most)
        if batch and (is_full or at - due >= _SLOT_SECONDS):
            yield due, batch
            batch = []
        due = due if batch else at
        batch.append(event)
    if batch:
        yield due, batch
