"""How far event time has come in one partition, by its events alone: no wall clock moves it."""

from collections.abc import Iterable
from typing import Self

from pydantic import Field

from runtime.frozen_model import FrozenModel


class WatermarkState(FrozenModel):
    """What survives a restart; times are event time in milliseconds."""

    watermark_ms: int | None = None
    newest_ms: dict[str, int] = Field(default={})
    """The newest event time seen, per input."""


class Watermark:
    """The least of the inputs' newest event times; it never goes back.

    So an event of one input cannot bend it, however odd its time: the other input holds it. An input without any event
    holds it back too; what waits for it is closed by a pause (`Join.tick`), which leaves event time alone.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._inputs = tuple(inputs)
        self._newest_ms: dict[str, int] = {}
        self.value_ms: int | None = None

    def restored(self, state: WatermarkState) -> Self:
        """Go on from a saved state."""
        self.value_ms, self._newest_ms = state.watermark_ms, dict(state.newest_ms)
        return self

    def state(self) -> WatermarkState:
        """What `restored` takes."""
        return WatermarkState.model_construct(watermark_ms=self.value_ms, newest_ms=dict(self._newest_ms))

    def newest_ms(self, source: str) -> int:
        """The newest event time of an input; -1 before its first event."""
        return self._newest_ms.get(source, -1)

    def observe(self, source: str, event_time_ms: int) -> None:
        """A record of this input with this event time was taken."""
        if event_time_ms <= self.newest_ms(source):
            return
        self._newest_ms[source] = event_time_ms
        if len(self._newest_ms) == len(self._inputs):
            self.value_ms = max(min(self._newest_ms.values()), -1 if self.value_ms is None else self.value_ms)
