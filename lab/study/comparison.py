"""The baseline's student against every other series, with intervals over users.

Shapes: N examples, K tasks, A arms, R draws of the users.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.cell import Predictions
from lab.study.findings import Findings, Series
from lab.study.grid import PLAIN_VARIANT
from lab.study.plain_models import PLAIN_MODELS
from lab.study.slices import slices_of
from lab.study.study_log import StudyLog
from lab.study.user_bootstrap import FEWEST_USERS, UserBootstrap
from stream.tasks import TaskSpec
from student.evaluate.arms import ARMS, STUDENT, TEACHER

_SEEDS = 3
"""How many seeds of a learner are scored on every draw of users: seeds differ far less than draws do."""

OfCell = Callable[[str, int], Predictions | None]
"""The predictions of a variant and a seed."""


class Difference(NamedTuple):
    """How much better one is than another; `low` and `high` bound 95 % of the draws of users, None with too few."""

    mean: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 where the first is better, -1 where the other is, 0 where that is not shown."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def text(self) -> str:
        """``+.0120 [+.0080, +.0160]``."""
        bounds = "" if self.low is None else f" [{self.low:+.4f}, {self.high:+.4f}]"
        return f"{self.mean:+.4f}{bounds}"


class Comparison:
    """Differences between series in a slice, of predictions made row by row or when they were served."""

    def __init__(self, findings: Findings, log: StudyLog, of_cell: OfCell) -> None:
        """`log`: the examples that the baseline has learnt, in their order."""
        self.findings = findings
        self._of_cell = of_cell
        self._bootstrap = UserBootstrap([example.user_id for example in log.examples], log.weights)
        self._members: Mapping[str, NDArray[np.bool_]] = slices_of(log.new_ids(), findings.grid.windows)
        self._known: dict[tuple[str, str, str, bool], list[NDArray[np.float64]]] = {}
        self._predictions: dict[tuple[str, int], Predictions | None] = {}

    @property
    def users(self) -> int:
        """How many users the log has."""
        return self._bootstrap.users

    def has(self, part: str) -> bool:
        """Whether the log reaches into that slice."""
        return part in self._members

    def score(self, series: Series, part: str, task: TaskSpec, *, served: bool) -> float | None:
        """The mean score over the seeds; None where it is undefined."""
        scores = self._scores(series, part, task, served=served)
        mean = float(np.mean([score_R[0] for score_R in scores])) if scores else float("nan")
        return mean if np.isfinite(mean) else None

    def difference(
        self, series: Series, other: Series, part: str, task: TaskSpec, *, served: bool
    ) -> Difference | None:
        """How much better `series` is than `other`: AUC more, or RMSE less; None where one has no score."""
        ours, theirs = (self._scores(each, part, task, served=served) for each in (series, other))
        if not ours or not theirs:
            return None
        better_R = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
        if task.kind == "regression":
            better_R = -better_R
        if not np.isfinite(better_R[0]):
            return None
        drawn_R = better_R[1:][np.isfinite(better_R[1:])]
        if self.users < FEWEST_USERS or not len(drawn_R):
            return Difference(float(better_R[0]), None, None)
        low, high = np.percentile(drawn_R, [2.5, 97.5])
        return Difference(float(better_R[0]), float(low), float(high))

    def _scores(self, series: Series, part: str, task: TaskSpec, *, served: bool) -> list[NDArray[np.float64]]:
        """For each seed its scores [1 + R]; none where the series has no prediction."""
        key = (series.name, part, task.name, served)
        if key not in self._known:
            seeds = 1 if series.arm == TEACHER else _SEEDS  # its logits are the same for every seed
            found = [self._of_seed(series, seed, part, task, served=served) for seed in range(1, seeds + 1)]
            self._known[key] = [score_R for score_R in found if score_R is not None and np.isfinite(score_R[0])]
        return self._known[key]

    def _of_seed(
        self, series: Series, seed: int, part: str, task: TaskSpec, *, served: bool
    ) -> NDArray[np.float64] | None:
        """None where it has no prediction, or not of all that the baseline has learnt: other rows do not compare."""
        kept, member_N = self._predicted(series.variant, seed), self._members[part]
        count = len(member_N)
        if kept is None or len(kept.label_NK) < count:
            return None
        arms: Sequence[str] = PLAIN_MODELS if series.variant == PLAIN_VARIANT else ARMS
        k, a = list(self.findings.tasks).index(task), list(arms).index(series.arm)
        value_N = (kept.served_NKA if served else kept.seen_NKA)[:, k, a]
        return self._bootstrap.scores(task.kind, kept.label_NK[:count, k], value_N[:count], member_N)

    def _predicted(self, variant: str, seed: int) -> Predictions | None:
        if (variant, seed) not in self._predictions:
            self._predictions[variant, seed] = self._of_cell(variant, seed)
        return self._predictions[variant, seed]


def student_of(findings: Findings) -> Series:
    """The series that is judged."""
    return Series(STUDENT, findings.grid.baseline, STUDENT)
