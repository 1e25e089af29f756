"""What a study says in plain words: who is best and by how much, where, whether the teacher helps, what to change."""

from collections.abc import Iterator

from lab.study.comparison import Comparison, Difference, student_of
from lab.study.findings import AS_INPUT_AND_PROFILES, PERMUTED, SERVED, TEACHER_AS_INPUT, Findings, Series
from lab.study.grid import PLAIN_VARIANT
from lab.study.intervals import Interval
from lab.study.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
from lab.study.slices import NEW_ITEMS, NEW_USERS
from lab.study.user_bootstrap import DRAWS, FEWEST_USERS
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_CHANCE = 0.02  # of an AUC: a teacher that is nearer to 0.5 does not order the rows of a task
MODEL_NAMES = {
    LR_TEACHER: "the regression with the teacher's logits",
    LR: "the regression",
    BAYES_BIAS: "Bayesian biases alone",
    ONLINE_LR: "online logistic regression",
    CONTROL: "the control",
    TEACHER: "the teacher alone",
    TEACHER_AS_INPUT: "the teacher as an input",
    AS_INPUT_AND_PROFILES: "the teacher as an input beside its profiles",
}


def verdict(comparison: Comparison) -> list[str]:
    """Sentences on every task, row by row and served, then what to change."""
    lines = [_how(comparison)]
    advice: dict[str, list[str]] = {}
    for task in comparison.findings.tasks:
        for served in (False, True):
            judged = _Judged(comparison, task, served=served)
            lines += judged.lines()
            for what in judged.advice():
                advice.setdefault(what, []).append(judged.kind)
        lines += _thin(comparison.findings, task)
    changes = [f"What to change ({'; '.join(kinds)}): {what}" for what, kinds in advice.items()]
    return [*lines, *(changes or ["What to change: nothing that these numbers show."])]


def _how(comparison: Comparison) -> str:
    users = comparison.users
    if users < FEWEST_USERS:
        return f"No intervals: they come from draws of at least {FEWEST_USERS} users, the log has {users}."
    return f"Intervals hold 95 % of {DRAWS} draws of the log's {users:,} users with replacement."


def _thin(findings: Findings, task: TaskSpec) -> Iterator[str]:
    """By the share of the users what the teacher gives, and against the regression that has it too, when served."""
    if not findings.has_teacher:
        return
    over = {"the control": (findings.grid.baseline, CONTROL), MODEL_NAMES[LR_TEACHER]: (PLAIN_VARIANT, LR_TEACHER)}
    for name, other in over.items():
        found = [(share, findings.at(share)) for share in findings.shares()]
        gains = [(share, thin.gain(findings.grid.baseline, f"{SERVED}all", task.name, other)) for share, thin in found]
        known = [f"{100 * share:g} % {_of_seeds(gain)}" for share, gain in gains if gain]
        if known:
            start = f"`{task.name}`, served, the student better than {name} by the share of the users"
            yield f"{start}: {', '.join(known)}."


def _of_seeds(gain: Interval) -> str:
    bounds = f" [{gain.low:+.4f}, {gain.high:+.4f}] over {gain.seeds} seeds" if gain.is_known else ""
    return f"{gain.mean:+.4f}{bounds}"


class _Judged:
    """One task, of predictions made row by row or when they were served."""

    def __init__(self, comparison: Comparison, task: TaskSpec, *, served: bool) -> None:
        self._comparison = comparison
        self._task = task
        self._served = served
        self._series = {series.name: series for series in comparison.findings.series()}
        self._student = student_of(comparison.findings)
        self.kind = f"`{task.name}`, {'served' if served else 'row by row'}"

    def lines(self) -> Iterator[str]:
        """Who is best, where, and what the teacher gives; nothing where the student has no score."""
        score, best = self._score(self._student), self._best()
        if score is None or best is None:
            return
        measure = self._comparison.findings.measure(self._task.name)
        yield (
            f"{self.kind}: {self._against(best)}; {measure} {score:.4f} for the student, {self._score(best):.4f} for "
            f"the other.{self._where(best)}"
        )
        gain = self._gain()
        if gain is not None:
            where = self._where(self._series[CONTROL])
            yield f"{self.kind}: {_teacher(gain)}: student - control = {gain.text()}.{where}"

    def advice(self) -> Iterator[str]:
        """What the numbers say should be changed, and why."""
        gain = self._gain()
        if gain is not None and gain.low is not None and gain.sign <= 0:
            yield self._without_gain(gain)
        if self._is_worse_than(LR_TEACHER) or self._is_worse_than(LR):
            yield (
                "a plain regression is better. Has features.categorical user_id and item_id, so that users and items "
                "are remembered, and is student.remembered_ids above their number? Are all dense columns numbers, "
                "not codes?"
            )
        helps = gain is not None and gain.sign > 0
        if helps and self._is_worse_than(TEACHER):
            yield (
                "the teacher helps, but alone it is better than the student: labels that are few or late lead the "
                "student away from it, or not all that it knows reaches the student. Add [[features.profiles]] of user "
                "and item, and begin with 'graft student bootstrap' (bootstrap = true of a variant). Where it is so in "
                "the first part of the log alone, more traffic mends it."
            )
        if self._is_worse_than(TEACHER_AS_INPUT) or self._is_worse_than(AS_INPUT_AND_PROFILES):
            yield (
                f"{'the teacher helps, but ' if helps else ''}the teacher as an input is better, so not all that it "
                "says of a row reaches the student. Try [[features.profiles]] of user and item, more bootstrap.rows "
                "and bootstrap.steps, or unshown.ratio = 1."
            )

    def _gain(self) -> Difference | None:
        """How much better the student is than its control; None without a teacher."""
        return self._better(self._series[CONTROL]) if CONTROL in self._series else None

    def _is_worse_than(self, name: str) -> bool:
        better = self._better(self._series[name]) if name in self._series else None
        return better is not None and better.sign < 0

    def _without_gain(self, gain: Difference) -> str:
        """Why the teacher does not help, as far as the numbers say it, and what to do."""
        alone, is_binary = self._score(self._series[TEACHER]), self._task.kind == "binary"
        how = "better" if gain.sign < 0 else "as well"
        if self._is_worse_than(TEACHER):
            return (
                f"the teacher alone is better than the student, which does {how} without it: what the teacher knows "
                "does not reach the student. Begin with 'graft student bootstrap' (bootstrap = true of a variant), and "
                "give the task a [[distillation]] table with its student_task."
            )
        start = f"the student does {how} without its teacher."
        if is_binary and alone is not None and abs(alone - 0.5) < _CHANCE:
            return (
                f"{start} The teacher's own AUC is {alone:.3f}: it does not order these rows. Are teacher.inputs right "
                "('graft check' lists what is defaulted), and do its logits belong to these ids? If they do, remove "
                "the [[distillation]] tables."
            )
        if is_binary and alone is not None and alone < 0.5:
            return f"{start} The teacher's own AUC is {alone:.3f}, below chance: is its logit one of the opposite?"
        if gain.sign < 0:
            return (
                f"{start} The teacher misleads it. Are teacher.inputs right ('graft check' lists what is defaulted), "
                "and are its values in the label's unit? If they are, remove the [[distillation]] tables."
            )
        return (
            f"{start} The labels of this log tell it what the teacher knows. Remove the [[distillation]] tables, or "
            "keep them for a surface with less traffic: a grid with 'thin' shows what they are worth there."
        )

    def _against(self, best: Series) -> str:
        better = self._better(best)
        assert better is not None
        name = MODEL_NAMES[best.name]
        if better.sign > 0 or (better.low is None and better.mean > 0):
            return f"the student is best, better than {name}, the next, by {_bare(better)}"
        if better.sign < 0 or (better.low is None and better.mean < 0):
            return f"{name} is best, better than the student by {_bare(better.reversed())}"
        return f"the student and {name}, the best of the others, do not differ for certain ({better.text()})"

    def _where(self, other: Series) -> str:
        """In which part of the log the student is better by most, and by least."""
        names = {f"all, {NEW_ITEMS}": "new items", f"all, {NEW_USERS}": "new users"}
        names |= {part: f"examples {part}" for part in self._comparison.findings.parts()}
        found = [(self._better(other, part), name) for part, name in names.items()]
        known = sorted(((d, name) for d, name in found if d), key=lambda one: one[0].mean)
        if len(known) < 2:
            return ""
        (least, at_least), (most, at_most) = known[0], known[-1]
        return f" By part of the log: from {most.text()} on {at_most} down to {least.text()} on {at_least}."

    def _best(self) -> Series | None:
        """The best of all that are not the student; a permuted teacher is no rival."""
        scored = {name: self._score(one) for name, one in self._series.items() if name not in (STUDENT, PERMUTED)}
        known = {name: score for name, score in scored.items() if score is not None}
        if not known:
            return None
        choose = max if self._task.kind == "binary" else min
        return self._series[choose(known, key=lambda name: known[name])]

    def _score(self, series: Series) -> float | None:
        return self._comparison.score(series, "all", self._task, served=self._served)

    def _better(self, other: Series, part: str = "all") -> Difference | None:
        return self._comparison.difference(self._student, other, part, self._task, served=self._served)


def _teacher(gain: Difference) -> str:
    if gain.low is None:
        return "the teacher seems to help" if gain.mean > 0 else "the teacher does not seem to help"
    return {1: "the teacher helps", 0: "the teacher does not help", -1: "the teacher does harm"}[gain.sign]


def _bare(better: Difference) -> str:
    """As ``.0120 [.0080, .0160]``."""
    return better.text().replace("+", "")
