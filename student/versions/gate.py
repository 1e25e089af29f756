"""How versions are judged before they serve: the `[gate]` table of graft.toml, and what a version says of its verdict.

The judging itself: student/evaluate/gate.py. docs/versions.md tells it in words.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.errors import did_you_mean
from runtime.frozen_model import FrozenModel

Verdict = Literal["open", "promote", "hold", "reject", "roll_back"]
"""`open`: not enough examples for another one. The last three stop the learner's versions from serving."""

STOPS: tuple[Verdict, ...] = ("hold", "reject", "roll_back")

WHOLE = "whole"
"""The slice of all examples."""


class SliceConfig(FrozenModel):
    """Examples on which versions are also judged on their own: those with `value` in a categorical feature."""

    column: str = Field(description="a feature of features.categorical")
    value: int | str = Field(description="its value in the slice's examples")
    bound: float = Field(default=0.02, gt=0, le=1)
    """As gate.bound, but for the slice: twice that, for a slice has fewer examples."""

    @property
    def name(self) -> str:
        """As in verdicts."""
        return f"{self.column}={self.value}"


class GateConfig(FrozenModel):
    """When the gate keeps a version from serving.

    A loss is log loss in nats (binary), or squared error over the variance of the labels (regression). The champion
    that a version is compared with is the last one that fresh examples have proven.
    """

    policy: Literal["newest", "proven", "off"] = Field(
        default="newest",
        description="what serves while the examples are too few for a verdict: the newest version, or the champion; "
        "off: every version serves, and none is judged",
    )
    after_examples: int = Field(default=500, ge=1)
    """Versions that have learnt fewer examples are not judged: they serve."""
    error_rate: float = Field(default=0.005, gt=0, lt=0.5)
    """The largest chance that the gate ever stops versions that keep all bounds."""
    bound: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="how much worse the newest versions may be than the champion, in mean loss on the same examples",
    )
    largest_gain: float = Field(default=0.2, gt=0, le=1)
    """How much better they may be, in mean loss; versions with a larger gain are held, since it is seldom true."""
    lost_share: float = Field(default=0.5, gt=0, lt=1)
    """Versions are held when they lose this share of the gain over the mean label that they have had."""
    least_calibration: float = Field(default=0.5, ge=0, lt=1)
    """Predicted / observed positives below which versions are rejected."""
    largest_calibration: float = Field(default=2.0, gt=1, le=10)
    """Predicted / observed positives above which versions are rejected."""
    slices: list[SliceConfig] = Field(default=[])

    @model_validator(mode="after")
    def _names_each_slice_once(self) -> Self:
        twice = [name for name, count in Counter(one.name for one in self.slices).items() if count > 1]
        if twice:
            raise ValueError(f"slices must differ, got {', '.join(twice)} more than once")
        return self


def slice_faults(slices: Sequence[SliceConfig], columns: Sequence[str]) -> Iterator[str]:
    """Each slice of a column that is no categorical feature, with its key in graft.toml."""
    for i, one in enumerate(slices):
        if one.column not in columns:
            near = did_you_mean(one.column, columns)
            yield f"gate.slices.{i}.column: must be one of features.categorical, got {one.column!r}{near}"


class Comparison(FrozenModel):
    """What is known of one mean difference, such as that of the loss of the candidate minus the champion's."""

    metric: str = Field(description="which difference: a check of student.evaluate.gate_checks")
    task: str
    slice: str
    examples: int = Field(description="compared since the champion was proven; of each 256 a user counts for at most 4")
    mean: float | None = Field(description="mean of the differences; none without examples")
    interval: tuple[float, float] | None = Field(
        description="confidence interval of the mean, valid at all times; none without examples"
    )
    bound: float = Field(description="the mean must not be above it")
    evidence: float = Field(description="that the mean was above the bound at some time, in nats")
    is_rising: bool = Field(default=False, description="whether the last 256 examples have added to the evidence")
    verdict: Verdict = Field(description="the gate's verdict when the evidence is enough")


class GateRecord(FrozenModel):
    """A verdict and all that decided it; `verdict_of` gives it again."""

    verdict: Verdict
    stopped: bool = Field(description="whether the gate holds the champion")
    candidate: str | None = Field(description="the newest version that 256 examples have judged, or a later one")
    next: str | None = Field(default=None, description="the next candidate, after 256 more examples")
    champion: str | None = Field(description="the version that was proven last; the candidate was compared with it")
    proven: str | None = Field(description="the version that is proven from now on: the candidate if it is promoted")
    enough_evidence: float = Field(description="a bound counts as passed from this evidence on, in nats")
    settings: GateConfig
    comparisons: list[Comparison]


def verdict_of(record: GateRecord) -> tuple[Verdict, Comparison | None]:
    """The verdict that follows from a record's comparisons, and the one that decided it, if one alone did.

    When several bounds are passed, a rollback comes before a rejection and a rejection before a hold: in this order
    they tell more of the candidate itself. The candidate is promoted when all of this holds: each interval of its
    loss minus the champion's lies below its bound (an interval without examples fails); no evidence is above 0 nats,
    its average on streams that keep their bounds; and the evidence of too large a gain has not risen with the last
    256 examples, which the candidate or later versions have predicted.
    """
    against = [one for one in record.comparisons if one.evidence >= record.enough_evidence]
    if against:
        worst = max(against, key=lambda one: (STOPS.index(one.verdict), one.evidence))
        return worst.verdict, worst
    compared = [one for one in record.comparisons if one.verdict == "roll_back"]
    is_new = record.candidate not in (None, record.champion)
    is_as_good = bool(compared) and all(one.interval is not None and one.interval[1] < one.bound for one in compared)
    if is_new and is_as_good and not any(_is_doubtful(one) for one in record.comparisons):
        return "promote", None
    return "open", None


def told(comparison: Comparison, record: GateRecord) -> str:
    """In words: metric, slice, candidate, champion, interval, bound, examples."""
    low, high = comparison.interval or (-math.inf, math.inf)
    return (
        f"{comparison.task} {comparison.metric}, slice {comparison.slice}, candidate {record.candidate}, "
        f"champion {record.champion}, interval {low:.4f} to {high:.4f}, bound {comparison.bound:.4f}, "
        f"examples {comparison.examples}"
    )


def _is_doubtful(comparison: Comparison) -> bool:
    return comparison.evidence >= 0 or (comparison.metric == "gain" and comparison.is_rising)
