"""What a difference between two models shows, in words and with its interval."""

from enum import Enum
from typing import NamedTuple

from lab.study.comparison import Comparison, Difference, student_of
from lab.study.findings import SERVED, Series
from lab.study.intervals import FEWEST_SEEDS, Interval
from lab.study.slices import EARLY, NEW_ITEMS, NEW_USERS
from lab.study.user_bootstrap import FEWEST_USERS
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL

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
