"""Plans a study of a folder: the teacher's inputs on its log, the first cell and what it costs, then the grid."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from features.spec import FeatureSpec
from graft.progress import Advance
from graft.project import Project
from lab.study.findings.findings import FEWEST_SEEDS
from lab.study.grid import Grid, TeacherChange, Variant
from lab.study.learners.cell import Result
from lab.study.learners.plan import Keys, cells_of
from lab.study.learners.teachers import InputUse, inputs_in_use, moving_inputs
from lab.study.learners.worker import Workplace, run_cells
from lab.study.log.study_log import read_log
from lab.study.studied import day_zero_of, with_other_cut_off

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


_SCORED = 300  # examples that the teacher, which may be slow, scores with each of its inputs at its default


class PlannedStudy(NamedTuple):
    """The grid that is learnt, what is known of the teacher's inputs, and how large the grid is.

    `size`: in words, with the options that learn the same again. `seconds`: about what its cells take; 0 where the
    options gave its size. `left_out`: sentences on what is learnt, what is not, and how to learn more.
    """

    grid: Grid
    inputs: Sequence[InputUse] = ()
    size: str = ""
    seconds: float = 0.0
    left_out: Sequence[str] = ()


class Asked(NamedTuple):
    """What the command line says of a study; None: as much as fits the time."""

    events: int | None
    seeds: int | None
    delay_seconds: float
    jobs: int


def plan_study(
    asked: Asked, project: Project, spec: FeatureSpec, log_folder: Path, out: Path, advance: Advance
) -> PlannedStudy:
    """Plan a study of five minutes; where its size is open, learn a first cell to know the cost.

    The same log, settings and `out` plan the same again: the first cell is kept with the seconds that it took.
    """
    # 1. The log, no more of it than can be learnt, and how the teacher sees it.
    log = read_log(log_folder, spec, asked.events or MOST_EVENTS)
    moving, rows = moving_inputs(project, log.first(_SCORED)), len(log.records)
    grid_of = partial(default_grid, project, moving, rows, delay_seconds=asked.delay_seconds)

    def whole(seeds: int) -> Grid:
        return with_other_cut_off(grid_of(seeds=seeds), project, log)

    # 2. What a learner costs, and how much fits.
    cost: Cost | None = None
    if asked.events and asked.seeds:
        plan = Plan(min(rows, asked.events), asked.seeds, 0.0)
    else:
        day_zero, first = day_zero_of(project, spec, log), log.first(PROBE_EVENTS)
        place = Workplace(log_folder, spec, day_zero, Keys(first, day_zero), out, PROBE_EVENTS)
        cost = cost_of(*run_cells(cells_of(grid_of(seeds=1), project, spec)[:1], place, 1, advance))
        plan = planned(cost, rows, asked.jobs, whole, asked.events, asked.seeds)
    # 3. What is learnt, and what is not.
    grid = default_grid(project, moving, plan.events, plan.seeds, asked.delay_seconds)
    inputs = inputs_in_use(project, log.first(plan.events))
    size = _size(plan, rows, is_all=rows < (asked.events or MOST_EVENTS))
    longer = seconds_of(whole(MOST_SEEDS), cost, rows, asked.jobs) if cost else None
    left_out = [_learnt(size, moving[MOST_INPUTS:]), *_more(plan, rows, longer)]
    return PlannedStudy(grid, inputs, size, plan.seconds, left_out)


def _size(plan: Plan, rows: int, *, is_all: bool) -> str:
    """``the first 9,200 of 20,000 examples, 5 seeds (--events 9200 --seeds 5)``."""
    some = f"the first {plan.events:,} of {rows:,}" if plan.events < rows else f"the first {rows:,}"
    examples = f"all {rows:,}" if is_all and plan.events == rows else some
    seeds = "1 seed" if plan.seeds == 1 else f"{plan.seeds} seeds"
    return f"{examples} examples, {seeds} (--events {plan.events} --seeds {plan.seeds})"


def _learnt(size: str, not_compared: Sequence[str]) -> str:
    others = ", ".join(f"`{name}`" for name in not_compared)
    without = f" Inputs that were not compared, for they move the teacher's logits least: {others}." if others else ""
    return f"Learnt: {size}.{without}"


def _more(plan: Plan, rows: int, longer: float | None) -> list[str]:
    """How to learn more, and how long it takes."""
    if longer is None or (plan.events == rows and plan.seeds == MOST_SEEDS):
        return []
    minutes = max(1, round(longer / 60))
    return [f"More: --events {rows} --seeds {MOST_SEEDS} takes about {minutes} min."]
