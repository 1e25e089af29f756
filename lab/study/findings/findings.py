"""The results of a grid: every score over the seeds, and the paired differences between arms and variants."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lab.study.grid import PLAIN_VARIANT, Grid, Variant
from lab.study.learners.cell import Result
from lab.study.learners.plain_models import LR_TEACHER, PLAIN_MODELS
from lab.study.log.study_log import window_names
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

FEWEST_SEEDS = 5
"""With fewer values there is no interval: two seeds of a teacher without worth lay close together on one side of 0."""


class Interval(NamedTuple):
    """A mean and its 95 % interval; where there are too few values for one, `low` and `high` are the mean."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_known(self) -> bool:
        """Whether there are values enough for an interval."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is known and does not hold 0."""
        return self.is_known and (self.low > 0 or self.high < 0)


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of at least one value (Student 1908)."""
    mean, count = float(np.mean(values)), len(values)
    if count < FEWEST_SEEDS:
        return Interval(mean, mean, mean, count)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half, count)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of ours - theirs, seed by seed."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


TEACHER_AS_INPUT, AS_INPUT_AND_PROFILES, PERMUTED = "teacher as input", "teacher as input and profiles", "permuted"

SERVED = "served: "
"""Before a slice: of predictions made when the impression came, with labels that were known by then."""


_Arm = tuple[str | None, str]
"""A variant, None where there is none, and one of its arms."""


class Series(NamedTuple):
    """An arm of a variant that a table or a picture compares, and its name there."""

    name: str
    variant: str
    arm: str


class Findings:
    """All results of one grid on one share of the users.

    A slice is a name of `lab.study.log.study_log`, also with ``served: `` before it.

    `best_auc`: of the true probabilities, by task, over the pair's whole stream; empty where the truth is not known.
    `has_teacher`: whether the project has one; without one student and control are the same.
    """

    def __init__(
        self,
        grid: Grid,
        tasks: Sequence[TaskSpec],
        results: Sequence[Result],
        best_auc: Mapping[str, float],
        share: float = 1.0,
        *,
        has_teacher: bool = True,
    ) -> None:
        self.has_teacher = has_teacher
        self.grid = grid
        self.tasks = tuple(tasks)
        self.share = share
        self.best_auc = dict(best_auc)
        self.results = tuple(result for result in results if result.share == share)
        self._all = tuple(results)
        self._of: dict[str, list[Result]] = {name: [] for name in (*(v.name for v in grid.variants), PLAIN_VARIANT)}
        for result in self.results:
            self._of[result.variant].append(result)

    def at(self, share: float) -> "Findings":
        """The findings on another share of the users, whose seeds are draws of them."""
        return Findings(self.grid, self.tasks, self._all, {}, share, has_teacher=self.has_teacher)

    def shares(self) -> list[float]:
        """The shares of the users that are compared, the whole log last; none where the grid thins nothing."""
        return [*sorted(self.grid.thin), 1.0] if self.grid.thin else []

    @property
    def binary(self) -> list[str]:
        """The tasks whose score is an AUC; of the others it is an RMSE."""
        return [task.name for task in self.tasks if task.kind == "binary"]

    @property
    def regressions(self) -> list[str]:
        """The tasks whose score is an RMSE."""
        return [task.name for task in self.tasks if task.kind == "regression"]

    def measure(self, task: str) -> str:
        """What the scores of a task are."""
        return "AUC" if task in self.binary else "RMSE"

    def variant(self, name: str) -> Variant:
        """The variant of that name; the plain models learn what the baseline learns."""
        wanted = self.grid.baseline if name == PLAIN_VARIANT else name
        return next(variant for variant in self.grid.variants if variant.name == wanted)

    @property
    def permuted(self) -> str | None:
        """The variant whose logits belong to other rows; None where the grid has none. Its gain should be 0."""
        return next((v.name for v in self.grid.variants if v.teacher.permuted), None)

    @property
    def teacher_as_input(self) -> str | None:
        """The variant whose arms have the teacher's logits as inputs, and nothing distilled; None where there is none.

        Its control is blind to all else of the teacher; its student has profiles and running mean logits too.
        """
        return next((v.name for v in self.grid.variants if v.teacher_as_input and "*" in v.without), None)

    def series(self) -> list[Series]:
        """What the headline compares: the baseline's arms, and all that could refute it."""
        arms = (STUDENT, CONTROL, TEACHER) if self.has_teacher else (STUDENT,)
        of_baseline = [Series(arm, self.grid.baseline, arm) for arm in arms]
        permuted = [Series(PERMUTED, self.permuted, STUDENT)] if self.permuted else []
        variants = [*as_input(self.teacher_as_input), *permuted]
        return [*of_baseline, *variants, *self.plain_models()]

    def plain_models(self) -> list[Series]:
        """The models without a student; without a teacher two of them would be the same."""
        arms = [arm for arm in PLAIN_MODELS if self.has_teacher or arm != LR_TEACHER]
        return [Series(arm, PLAIN_VARIANT, arm) for arm in arms]

    def seeds(self, variant: str) -> int:
        """How many seeds of the variant have a result."""
        return len(self._of[variant])

    def values(self, variant: str | None, part: str, task: str, arm: str) -> dict[int, float]:
        """The score of each seed; none where it is undefined, or where there is no such variant."""
        if variant is None:
            return {}
        found = {result.seed: _scores(result, part).get(task, {}).get(arm) for result in self._of[variant]}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, variant: str | None, part: str, task: str, arm: str) -> Interval | None:
        """The score over the seeds."""
        values = self.values(variant, part, task, arm)
        return interval(list(values.values())) if values else None

    def gain(self, variant: str | None, part: str, task: str, over: _Arm | None = None) -> Interval | None:
        """Student minus control of the same run, or minus another (variant, arm) of the same seed.

        Above 0 is better; of an RMSE it is the other minus the student. A seed that only one of them has is left out.
        Plain models have no seed on the whole log: there every seed is compared with the same value.
        """
        return self.better((variant, STUDENT), over or (variant, CONTROL), part, task)

    def better(self, one: _Arm, other: _Arm, part: str, task: str) -> Interval | None:
        """How much better one (variant, arm) is than another, as `gain` says it."""
        ours, theirs = (self.values(variant, part, task, arm) for variant, arm in (one, other))
        if other[0] == PLAIN_VARIANT and self.share == 1 and theirs:
            theirs = dict.fromkeys(ours, next(iter(theirs.values())))
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        both = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
        return paired(*both) if task in self.binary else paired(*reversed(both))

    def transferability(self, part: str, task: str) -> float | None:
        """(student - control) / (teacher as input - control), of means; None where the latter may not be above 0."""
        base = self.grid.baseline
        ours = self.gain(base, part, task)
        theirs = self.better((self.teacher_as_input, CONTROL), (base, CONTROL), part, task)
        if ours is None or theirs is None or not theirs.is_known or theirs.low <= 0:
            return None
        return ours.mean / theirs.mean

    def steps_equal(self) -> bool:
        """Whether the headline's variants took the same steps over the log on every seed; both arms of one always do.

        The student's additional steps of the bootstrap are `Result.bootstrap_steps`.
        """
        learners = {series.variant for series in self.series()} - {PLAIN_VARIANT}
        found = {(result.seed, result.steps) for variant in learners for result in self._of[variant]}
        return len(found) == len({seed for seed, _ in found})

    def examples(self) -> int:
        """How many examples the baseline has learnt, at most."""
        return max((result.examples for result in self._of[self.grid.baseline]), default=0)

    def parts(self) -> list[str]:
        """The windows that the results reach into, the tail after the last edge too."""
        return window_names(self.grid.windows, self.examples())


def as_input(variant: str | None) -> list[Series]:
    """The two arms of a variant whose inputs are the teacher's logits; none where there is no such variant."""
    arms = ((TEACHER_AS_INPUT, CONTROL), (AS_INPUT_AND_PROFILES, STUDENT))
    return [Series(name, variant, arm) for name, arm in arms] if variant else []


def _scores(result: Result, part: str) -> dict[str, dict[str, float]]:
    if part.startswith(SERVED):
        return result.served.get(part.removeprefix(SERVED), {})
    return result.scores.get(part, {})
