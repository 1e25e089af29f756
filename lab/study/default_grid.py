"""The grid of `graft study FOLDER`: it answers whether the teacher helps, and is as large as the time allows."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graft.project import Project
from lab.study.cell import Result
from lab.study.grid import Grid, TeacherChange, Variant
from lab.study.intervals import FEWEST_SEEDS

MOST_EVENTS = 20_000
"""Examples that are learnt unless --events asks for more: as many as the headline's; they are joined in seconds."""
PROBE_EVENTS = 1_000
"""Examples of the first cell, whose seconds tell what the others will take."""
MOST_INPUTS = 4
"""Inputs of the teacher that are compared with their default: those that move its logits most."""
MOST_SEEDS = 10
"""Seeds of the baseline, where the time allows: as many as the headline has."""
_SHARE = 0.3  # of the users, beside all of them
_SECONDS = 210.0  # of 300: the rest is for the check, the join, the first cell and the report
_FEWEST_EVENTS = 500  # fewer say nothing, however long they take
_INPUT_SEEDS = 2  # the interval is over the users
_PLAIN_MODELS = 2.0  # learners that take as long as all of them: 1 at 4,000 examples, more as their refits grow


class Cost(NamedTuple):
    """Seconds of one core that a learner takes: before its first example, and for each one."""

    start_seconds: float
    example_seconds: float


class Plan(NamedTuple):
    """How much is learnt, and how long that will take, in seconds of wall clock."""

    events: int
    seeds: int
    seconds: float


def cost_of(probe: Result) -> Cost:
    """What the first cell has cost."""
    return Cost(probe.seconds - probe.learning_seconds, probe.learning_seconds / max(1, probe.examples))


def planned(
    cost: Cost,
    rows: int,
    jobs: int,
    grid_of: Callable[[int], Grid],
    events: int | None = None,
    seeds: int | None = None,
) -> Plan:
    """As many of the log's `rows` as fit with five seeds; more seeds where all rows fit.

    `events` and `seeds` are kept where they are given. `grid_of`: the grid with so many seeds. The plan has at least
    500 events, or all that there are, however long they take.
    """
    rows = min(rows, events or rows)
    for count in [seeds] if seeds else range(MOST_SEEDS, FEWEST_SEEDS - 1, -1):
        seconds = seconds_of(grid_of(count), cost, rows, jobs)
        if seconds <= _SECONDS:
            return Plan(rows, count, seconds)
    fewest = seeds or FEWEST_SEEDS
    grid = grid_of(fewest)
    none, one = (seconds_of(grid, cost, count, jobs) for count in (0, 1))
    fitting = int((_SECONDS - none) / (one - none)) if one > none else rows
    fitting = rows if events else min(rows, max(_FEWEST_EVENTS, fitting // 100 * 100))
    return Plan(fitting, fewest, seconds_of(grid, cost, fitting, jobs))


def seconds_of(grid: Grid, cost: Cost, events: int, jobs: int) -> float:
    """The wall clock that the cells of a grid take over so many events, `jobs` at a time."""
    learners = sum(variant.seeds or grid.seeds for variant in grid.variants)
    starts = learners + grid.thin_draws * len(grid.thin)
    logs = learners + _PLAIN_MODELS + grid.thin_draws * sum(grid.thin) * (1 + _PLAIN_MODELS)
    return (starts * cost.start_seconds + logs * events * cost.example_seconds) / min(jobs, starts)


def default_grid(project: Project, moving: Sequence[str], events: int, seeds: int, delay_seconds: float) -> Grid:
    """The project's graft.toml as it is, against its control and the plain models, on all users and on a share of them.

    For each of the first `moving` inputs also the student of a teacher that has this input at its default.
    """
    is_distilled = bool(project.distillation)
    baseline = Variant(name="project", says="graft.toml as it is", bootstrap=is_distilled)
    reaches_student = is_distilled or bool(project.features.profiles)
    compared = moving[:MOST_INPUTS] if reaches_student else ()
    return Grid(
        log_events=events,
        seeds=seeds,
        baseline=baseline.name,
        windows=sorted({0, events // 3, 2 * events // 3, events}),
        label_delay_seconds=delay_seconds,
        thin=[_SHARE],
        thin_draws=min(seeds, FEWEST_SEEDS),
        variants=[
            baseline,
            *(_without_input(number, name, baseline, seeds) for number, name in enumerate(compared, 1)),
        ],
    )


def _without_input(number: int, name: str, baseline: Variant, seeds: int) -> Variant:
    spelled = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return baseline.model_copy(
        update={
            "name": f"without_{number}_{spelled}",
            "says": f"{name} of the teacher at its default",
            "question": "Inputs of the teacher",
            "teacher": TeacherChange(defaulted=[name]),
            "seeds": min(seeds, _INPUT_SEEDS),
        }
    )
