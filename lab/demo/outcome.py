"""What was counted while the stages ran; the report shows it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.dev.client import Answer, Swap, swaps_seen
from lab.dev.watch import HitRate
from runtime.frozen_model import FrozenModel
from stream.log.examples import ExampleRecord


def freshness_seconds(
    came_at_seconds: Sequence[float], examples_of_version: Mapping[str, int], answers: Sequence[Answer]
) -> NDArray[np.float64]:
    """For each example, in the order in which it came: seconds until the first answer that it could have moved.

    An example comes as soon as the join has closed its window and committed it. Infinite where no answer came of a
    version that had learnt it. A version that the client saw, but whose examples are not known, is passed over.
    """
    came_at_N = np.asarray(came_at_seconds, np.float64)
    learnt = [(a.at_seconds, examples_of_version.get(a.version or "")) for a in answers]
    known = [(at, examples) for at, examples in learnt if examples is not None]
    answered_at_A = np.array([at for at, _ in known] + [np.inf])
    learnt_A = np.maximum.accumulate(np.array([examples for _, examples in known] + [np.iinfo(np.int64).max]))
    number_N = np.arange(len(came_at_N))
    return np.asarray(answered_at_A[np.searchsorted(learnt_A, number_N, side="right")] - came_at_N)


def quantile_seconds(seconds_N: NDArray[np.float64], share: float) -> float | None:
    """What `share` of the examples did not exceed; None without an example, or where so many moved no answer."""
    quantile = float(np.quantile(seconds_N, share, method="higher")) if len(seconds_N) else np.inf
    return quantile if np.isfinite(quantile) else None


class Joined(FrozenModel):
    """How many impressions were sent, how many examples they became, and how many are missing, doubled or unknown."""

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
        """What `share` of the examples took at most from the topic to an answer; see `lab.demo.outcome`."""
        seconds_N = freshness_seconds(self.came_at_seconds, self.examples_of_version, self.answers)
        return quantile_seconds(seconds_N, share)

    @property
    def swaps(self) -> list[Swap]:
        """The changes of version that the client saw."""
        return swaps_seen(self.answers)
