"""What was counted while the stages ran; the report shows it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lab.demo.freshness import freshness_seconds, quantile_seconds
from lab.dev.client import Answer, Swap, swaps_seen
from lab.dev.watch import HitRate
from stream.examples import ExampleRecord


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
    came_at_seconds: Sequence[float]
    """Of every example, in the order of the topic."""
    answers: Sequence[Answer]
    hits: Sequence[HitRate]
    scorer_swaps: int
    dead_letters: int
    examples_of_version: Mapping[str, int]
    restarts: Mapping[str, int]

    def freshness_seconds(self, share: float) -> float | None:
        """What `share` of the examples took at most from the topic to an answer; see `lab.demo.freshness`."""
        seconds_N = freshness_seconds(self.came_at_seconds, self.examples_of_version, self.answers)
        return quantile_seconds(seconds_N, share)

    @property
    def swaps(self) -> list[Swap]:
        """The changes of version that the client saw."""
        return swaps_seen(self.answers)
