"""What a grid's results say: every score over the seeds, and the paired differences between arms and variants."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from lab.study.cell import Result
from lab.study.grid import Grid, Variant
from lab.study.intervals import Interval, interval, paired
from runtime.errors import InvalidInputError
from stream.tasks import TaskSpec


class Findings:
    """All results of one grid. A slice is a name of `lab.study.slices`, or ``held out after N``.

    `best_auc`: of the true probabilities, by task, over the pair's whole stream; empty where nobody knows them.
    """

    def __init__(
        self, grid: Grid, tasks: Sequence[TaskSpec], results: Sequence[Result], best_auc: Mapping[str, float]
    ) -> None:
        self.grid = grid
        self.tasks = tuple(tasks)
        self.results = tuple(results)
        self.best_auc = dict(best_auc)
        self._of: dict[str, list[Result]] = {variant.name: [] for variant in grid.variants}
        for result in results:
            self._of[result.variant].append(result)

    @property
    def binary(self) -> list[str]:
        """The tasks whose score is an AUC; the others' is an RMSE."""
        return [task.name for task in self.tasks if task.kind == "binary"]

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return next(variant for variant in self.grid.variants if variant.name == name)

    def permuted(self) -> Variant | None:
        """The refutation: what is left when the logits belong to other rows."""
        return next((v for v in self.grid.variants if v.teacher.permuted), None)

    def teacher_as_input(self) -> Variant | None:
        """The control with the teacher's logits as inputs, and nothing distilled."""
        return next((v for v in self.grid.variants if v.teacher_as_input and "*" in v.without), None)

    def compared(self) -> list[str]:
        """The headline's variants: the baseline and, where the grid has them, those that could refute it."""
        return [self.grid.baseline, *(v.name for v in (self.permuted(), self.teacher_as_input()) if v)]

    def seeds(self, variant: str) -> int:
        """How many of its seeds have a result."""
        return len(self._of[variant])

    def values(self, variant: str, part: str, task: str, arm: str) -> dict[int, float]:
        """The score of each seed; none where it is undefined."""
        learnt, comma, rest = part.partition(",")
        if learnt == f"first {self.variant(variant).events or self.grid.events}":
            part = f"all{comma}{rest}"  # a run ends with a whole micro-batch, some rows early
        found = {result.seed: _scores(result, part).get(task, {}).get(arm) for result in self._of[variant]}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, variant: str, part: str, task: str, arm: str) -> Interval | None:
        """The score over the seeds."""
        values = self.values(variant, part, task, arm)
        return interval(list(values.values())) if values else None

    def gain(self, variant: str, part: str, task: str, over: tuple[str, str] | None = None) -> Interval | None:
        """Student minus control of the same run, or minus another (variant, arm) of the same seed.

        Above 0 is better: of an RMSE the difference is turned round. Seeds that only one of the two has are left out.
        """
        other = over or (variant, "control")
        ours, theirs = self.values(variant, part, task, "student"), self.values(other[0], part, task, other[1])
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        both = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
        return paired(*both) if task in self.binary else paired(*reversed(both))

    def transferability(self, part: str, task: str) -> float | None:
        """(student - control) / (teacher as input - control), of means; None where the latter's interval reaches 0."""
        as_input = self.teacher_as_input()
        if as_input is None:
            return None
        base = self.grid.baseline
        ours, theirs = self.gain(base, part, task), self.gain(as_input.name, part, task, (base, "control"))
        if ours is None or theirs is None or theirs.low <= 0:
            return None
        return ours.mean / theirs.mean

    def baseline_part(self, events: int | None) -> str:
        """The slice of the baseline that is to be compared with all of a variant that learns so many examples."""
        base = self.variant(self.grid.baseline).events or self.grid.events
        return "all" if events in {base, None} else f"first {events}"

    def steps_equal(self) -> bool:
        """Whether the headline's variants took the same steps over the log on every seed; both arms of one always do.

        The bootstrap's, which the student takes before it and on top, are `Result.bootstrap_steps`.
        """
        found = {(result.seed, result.steps) for name in self.compared() for result in self._of[name]}
        return len(found) == len({seed for seed, _ in found})

    def parts(self) -> list[str]:
        """The windows that the results reach into."""
        learnt = max((result.examples for result in self.results), default=0)
        return [f"{low}-{high}" for low, high in pairwise(self.grid.windows) if low < learnt]


def headline(findings: Findings, pair: str) -> dict[str, Any]:
    """study/headline.json: the baseline variant against its control, the teacher, and the two that try to refute it."""
    base = findings.grid.baseline
    results = [result for result in findings.results if result.variant == base]
    if not results:
        raise InvalidInputError(f"the grid has no result of its baseline {base}")
    return {
        "pair": pair,
        "events": results[0].examples,
        "seeds": min(findings.seeds(name) for name in findings.compared()),
        "steps_equal": findings.steps_equal(),
        "bootstrap_steps": results[0].bootstrap_steps,
        **_part(findings, "all"),
        "windows": [
            {"from": low, "to": high, **_part(findings, f"{low}-{high}")}
            for low, high in pairwise(findings.grid.windows)
            if low < results[0].examples
        ],
    }


def _part(findings: Findings, part: str) -> dict[str, Any]:
    gains = {task: findings.gain(findings.grid.baseline, part, task) for task in findings.binary}
    return {
        "auc": {task: dict(_arms(findings, part, task)) for task in findings.binary},
        "gain": {t: {"mean": g.mean, "low": g.low, "high": g.high} for t, g in gains.items() if g},
        "transferability": {task: findings.transferability(part, task) for task in findings.binary},
    }


def _arms(findings: Findings, part: str, task: str) -> Iterator[tuple[str, float | None]]:
    base, permuted, as_input = findings.grid.baseline, findings.permuted(), findings.teacher_as_input()
    named = [("student", base, "student"), ("control", base, "control"), ("teacher", base, "teacher")]
    named += [("teacher_as_input", as_input.name, "student")] if as_input else []
    named += [("permuted", permuted.name, "student")] if permuted else []
    for name, variant, arm in named:
        found = findings.mean(variant, part, task, arm)
        yield name, found.mean if found else None


def _scores(result: Result, part: str) -> dict[str, dict[str, float]]:
    prefix = "held out after "
    if part.startswith(prefix):
        return result.held_out.get(int(part.removeprefix(prefix)), {})
    return result.scores.get(part, {})
