"""What was counted while the stages ran; the report shows it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lab.demo.client import Answer, Swap, swaps_seen
from stream.examples import ExampleRecord


class HitRate(NamedTuple):
    """Teacher logits found so far: `found` of `asked` at a time since the stages started."""

    at_seconds: float
    found: float
    asked: float

    @property
    def rate(self) -> float | None:
        """The share found; None before the first was asked for."""
        return self.found / self.asked if self.asked else None


class Joined(BaseModel):
    """How many impressions were sent, how many examples they became, and how many are missing, doubled or unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    impressions: int
    examples: int
    missing: int
    doubled: int
    unknown: int


class Outcome(NamedTuple):
    """All that was counted; times in seconds since the stages started."""

    joined: Joined
    first_examples: Sequence[ExampleRecord]
    """As many as the plan compares with baselines."""
    answers: Sequence[Answer]
    hits: Sequence[HitRate]
    scorer_swaps: int
    dead_letters: int
    examples_of_version: Mapping[str, int]
    restarts: Mapping[str, int]

    @property
    def swaps(self) -> list[Swap]:
        """The changes of version that the client saw."""
        return swaps_seen(self.answers)
