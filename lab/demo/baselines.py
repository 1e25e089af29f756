"""What could refute the demo's student, in numbers: see lab/demo/compare.py."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from student.evaluate.history import Point

LABEL_DELAY_SECONDS = 3_600
"""After which served predictions know labels, as in the study's headline."""


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Better(_Numbers):
    """How much better the student is, AUC more or RMSE less; 95 % of the draws of users, None with too few users."""

    mean: float
    low: float | None
    high: float | None


class Judged(_Numbers):
    """One way of judging: AUC of a binary task, RMSE of a regression; None where it is undefined."""

    score: float | None
    student_better: Better | None
    """None for the student itself."""


class Ways(_Numbers):
    """The same model, judged in both ways."""

    row_by_row: Judged
    served: Judged


class Baselines(_Numbers):
    """The student, learnt again over the first `examples`, beside all that could be better than it."""

    examples: int
    scores: Mapping[str, Mapping[str, Ways]]
    """Task -> model -> its scores."""
    verdict: list[str]


class Compared(NamedTuple):
    """The baselines' numbers, and the curves of the references."""

    baselines: Baselines
    points: Sequence[Point]
