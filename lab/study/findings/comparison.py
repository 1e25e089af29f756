"""The baseline's student against every other series, with intervals over users, and what a difference shows in words.

Shapes: N examples, G groups of equal scores, K tasks, A arms, R draws of the users.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.findings.findings import FEWEST_SEEDS, SERVED, Findings, Interval, Series
from lab.study.grid import PLAIN_VARIANT
from lab.study.learners.cell import Predictions
from lab.study.learners.plain_models import PLAIN_MODELS
from lab.study.log.study_log import EARLY, NEW_ITEMS, NEW_USERS, StudyLog, slices_of
from stream.tasks import TaskKind, TaskSpec
from student.evaluate.arms import ARMS, CONTROL, STUDENT, TEACHER

DRAWS = 200
FEWEST_USERS = 20
"""With fewer users there is no interval."""
_SEED = 20_260_101


class UserBootstrap:
    """Scores on the same `DRAWS` draws of the users (Efron 1979): what two models differ in, on each draw."""

    def __init__(self, user_ids: Sequence[int | str], weight_N: NDArray[np.float32] | None = None) -> None:
        """`weight_N`: as how many rows each of the N examples counts; None: as one."""
        self._weight_N = weight_N
        number: dict[int | str, int] = {}
        self._user_N = np.array([number.setdefault(user_id, len(number)) for user_id in user_ids], np.intp)
        self.users = len(number)
        random = np.random.default_rng(_SEED)
        even = np.full(self.users, 1 / max(1, self.users))
        self._times_RU = random.multinomial(self.users, even, DRAWS).astype(np.float32)

    def scores(
        self, kind: TaskKind, label_N: NDArray[np.float32], value_N: NDArray[np.float32], member_N: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """The AUC or RMSE of the members on all users, then on each draw [1 + R]; NaN where it is undefined."""
        row_B = np.flatnonzero(member_N & np.isfinite(label_N) & np.isfinite(value_N))
        if kind == "binary":
            row_B = row_B[np.argsort(value_N[row_B], kind="stable")]
        draws_RB = self._times_RU[:, self._user_N[row_B]]
        weight_RB = np.concatenate([np.ones((1, len(row_B)), np.float32), draws_RB])
        if self._weight_N is not None:
            weight_RB *= self._weight_N[row_B]
        with np.errstate(invalid="ignore", divide="ignore"):
            if kind == "binary":
                return _auc(label_N[row_B], value_N[row_B], weight_RB)
            square_B = (label_N[row_B].astype(np.float64) - value_N[row_B]) ** 2
            return np.asarray(np.sqrt(weight_RB @ square_B / weight_RB.sum(axis=1)))


def _auc(
    label_B: NDArray[np.float32], value_B: NDArray[np.float32], weight_RB: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The share of pairs in the right order, ties half, of rows in the order of their value, for each weighting."""
    if not len(value_B):
        return np.full(len(weight_RB), np.nan)
    positive_RG = weight_RB * label_B
    negative_RG = weight_RB - positive_RG
    first_G = np.flatnonzero(np.concatenate([[True], value_B[1:] != value_B[:-1]]))
    if len(first_G) < len(value_B):
        positive_RG, negative_RG = (np.add.reduceat(of, first_G, axis=1) for of in (positive_RG, negative_RG))
    below_RG = np.cumsum(negative_RG, axis=1)  # whole numbers and halves: exact in float32 up to 8 million rows
    positives_R, negatives_R = positive_RG.sum(axis=1, dtype=np.float64), below_RG[:, -1].astype(np.float64)
    below_RG -= negative_RG / 2
    return np.asarray(np.einsum("rg,rg->r", positive_RG, below_RG, dtype=np.float64) / (positives_R * negatives_R))


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


WORTH = 0.005
"""A difference counts as none where all its interval is nearer to 0 than this: in AUC, or as a share of the RMSE."""


WHOM = {f"all, {NEW_USERS}": "new users", f"all, {NEW_ITEMS}": "new items", EARLY: f"the {EARLY} events"}
"""The slices in which a teacher may help most, with their names for people."""


def control_of(comparison: Comparison) -> Series:
    """The same student without its teacher."""
    return Series(CONTROL, comparison.findings.grid.baseline, CONTROL)


class Claim(Enum):
    """What is shown of a difference."""

    BETTER = "better"
    SAME = "same"
    WORSE = "worse"
    UNKNOWN = "unknown"


class Against(NamedTuple):
    """The student against another: both scores, and how much better the student is."""

    claim: Claim
    student: float
    other: float
    better: Difference

    @property
    def text(self) -> str:
        """``+.0120 [+.0080, +.0160]``."""
        return self.better.text()


class Judge:
    """Judges the student on one task, served or row by row."""

    def __init__(self, comparison: Comparison, task: TaskSpec) -> None:
        self.comparison = comparison
        self.task = task
        self.measure = comparison.findings.measure(task.name)

    def against(self, other: Series, part: str = "all", *, served: bool = True) -> Against | None:
        """The student in a part of the log against another series; None where one of them has no score there."""
        findings, student = self.comparison.findings, student_of(self.comparison.findings)
        if not self.comparison.has(part):
            return None
        better = self.comparison.difference(student, other, part, self.task, served=served)
        scores = [self.comparison.score(one, part, self.task, served=served) for one in (student, other)]
        if better is None or scores[0] is None or scores[1] is None:
            return None
        slice_ = f"{SERVED}{part}" if served else part
        over_seeds = findings.gain(student.variant, slice_, self.task.name, (other.variant, other.arm))
        least = WORTH * (1 if self.task.kind == "binary" else scores[1])
        claim = claim_of(better, over_seeds, least)
        return Against(claim, scores[0], scores[1], better)

    @property
    def why_unknown(self) -> str:
        """What is missing to tell."""
        users, seeds = self.comparison.users, self.comparison.findings.seeds(self.comparison.findings.grid.baseline)
        if users < FEWEST_USERS:
            return f"an interval needs {FEWEST_USERS} users, the log has {users}"
        if seeds < FEWEST_SEEDS:
            return f"that needs {FEWEST_SEEDS} seeds, {seeds} {'was' if seeds == 1 else 'were'} learnt"
        return "more events of more users narrow the interval"


def claim_of(better: Difference, over_seeds: Interval | None, least: float) -> Claim:
    """What the intervals over users and over seeds show together; below `least` a difference counts as none."""
    if better.low is None or better.high is None or over_seeds is None or not over_seeds.is_known:
        return Claim.UNKNOWN
    if -least < better.low and better.high < least:
        return Claim.SAME
    if better.low > 0 and over_seeds.low > 0:
        return Claim.BETTER
    return Claim.WORSE if better.high < 0 and over_seeds.high < 0 else Claim.UNKNOWN
