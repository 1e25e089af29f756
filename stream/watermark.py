"""How far event time has come in one partition; the stream does not wait for earlier events."""

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict


class WatermarkState(BaseModel):
    """What survives a restart; times are event time in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watermark_ms: int | None = None
    newest_ms: dict[str, int] = {}
    """The newest event time seen, per input."""


class Watermark:
    """The least of the inputs' newest event times; it never goes back.

    An input that is quiet (caught up, and without a record for `idle_ms` of wall clock) does not hold it back. When
    all are quiet, event time moves on with the wall clock from the newest event. Clocks are passed in, in
    milliseconds; an input without any event yet holds the watermark back until it is quiet.
    """

    def __init__(self, inputs: Iterable[str], idle_ms: float) -> None:
        self._idle_ms = idle_ms
        self._heard_ms = dict.fromkeys(inputs, 0.0)
        self._newest_ms: dict[str, int] = {}
        self._quiet: frozenset[str] = frozenset()
        self._moved_on_ms = 0.0
        self.value_ms: int | None = None

    def restored(self, state: WatermarkState) -> Self:
        """Go on from a saved state."""
        self.value_ms, self._newest_ms = state.watermark_ms, dict(state.newest_ms)
        return self

    def state(self) -> WatermarkState:
        """What `restored` takes."""
        return WatermarkState.model_construct(watermark_ms=self.value_ms, newest_ms=dict(self._newest_ms))

    def started(self, now_ms: float) -> None:
        """Reading begins: no input is quiet before `idle_ms` have passed."""
        self._heard_ms = dict.fromkeys(self._heard_ms, now_ms)

    def heard(self, source: str, now_ms: float) -> None:
        """A record of this input arrived at this wall-clock time."""
        self._heard_ms[source] = now_ms
        self._quiet -= {source}

    def tick(self, caught_up: Iterable[str], now_ms: float) -> None:
        """Let wall-clock time pass; `caught_up` names the inputs whose every record has been taken."""
        self._quiet = frozenset(s for s in caught_up if now_ms - self._heard_ms[s] >= self._idle_ms)
        all_quiet = len(self._quiet) == len(self._heard_ms)
        self._moved_on_ms = now_ms - max(self._heard_ms.values()) - self._idle_ms if all_quiet else 0.0
        self._advance()

    def observe(self, source: str, event_time_ms: int) -> None:
        """A record of this input with this event time was taken."""
        if event_time_ms > self._newest_ms.get(source, -1):
            self._newest_ms[source] = event_time_ms
            self._advance()

    def _advance(self) -> None:
        value = self._value()
        if value is not None and (self.value_ms is None or value > self.value_ms):
            self.value_ms = value

    def _value(self) -> int | None:
        newest = self._newest_ms
        if len(self._quiet) == len(self._heard_ms):
            return int(max(newest.values()) + self._moved_on_ms) if newest else None
        waited_for = [newest.get(s) for s in self._heard_ms if s not in self._quiet]
        seen = [ms for ms in waited_for if ms is not None]
        return min(seen) if len(seen) == len(waited_for) else None
