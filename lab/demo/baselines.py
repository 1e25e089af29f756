"""What could refute the demo's student, in numbers: see lab/demo/run.py."""

from collections.abc import Sequence
from typing import NamedTuple

from lab.study.model_scores import ScoresByTask
from runtime.frozen_model import FrozenModel
from student.evaluate.history import Point

LABEL_DELAY_SECONDS = 3_600
"""After which served predictions know labels, as in the study's headline."""


class Baselines(FrozenModel):
    """The student, learnt again over the first `examples`, beside all that could be better than it."""

    examples: int
    scores: ScoresByTask
    verdict: list[str]


class Compared(NamedTuple):
    """The baselines' numbers, and the curves of the plain models."""

    baselines: Baselines
    points: Sequence[Point]
