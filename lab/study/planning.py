"""Plans a study of a folder: the teacher's inputs on its log, the first cell and what it costs, then the grid."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from features.spec import FeatureSpec
from graft.progress import Advance
from graft.project import Project
from lab.study.default_grid import (
    MOST_EVENTS,
    MOST_INPUTS,
    MOST_SEEDS,
    PROBE_EVENTS,
    Cost,
    Plan,
    cost_of,
    default_grid,
    planned,
    seconds_of,
)
from lab.study.grid import Grid
from lab.study.keys import Keys
from lab.study.plan import cells_of
from lab.study.run import run_cells
from lab.study.studied import day_zero_of, logged_generation
from lab.study.study_log import read_log
from lab.study.teacher_inputs import InputUse, inputs_in_use, moving_inputs
from lab.study.teacher_logits import with_other_cut_off
from lab.study.workplace import Workplace

_SCORED = 300  # examples that the teacher, which may be slow, scores with each of its inputs at its default
_LOGGED = (
    "The teacher's inputs were not compared with their default: the log has the logits that its learner used, misses "
    "too. Without LOG/_logits all are scored anew."
)


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
    generation = logged_generation(project, spec, log_folder)
    log = read_log(log_folder, spec, generation, asked.events or MOST_EVENTS)
    moving, rows = [] if log.logged else moving_inputs(project, log.first(_SCORED)), len(log.records)
    grid_of = partial(default_grid, project, moving, rows, delay_seconds=asked.delay_seconds)

    def whole(seeds: int) -> Grid:
        return with_other_cut_off(grid_of(seeds=seeds), project, log)

    # 2. What a learner costs, and how much fits.
    cost: Cost | None = None
    if asked.events and asked.seeds:
        plan = Plan(min(rows, asked.events), asked.seeds, 0.0)
    else:
        day_zero, first = day_zero_of(project, spec, log), log.first(PROBE_EVENTS)
        place = Workplace(log_folder, spec, day_zero, Keys(first, day_zero), out, generation, PROBE_EVENTS)
        cost = cost_of(*run_cells(cells_of(grid_of(seeds=1), project, spec)[:1], place, 1, advance))
        plan = planned(cost, rows, asked.jobs, whole, asked.events, asked.seeds)
    # 3. What is learnt, and what is not.
    grid = default_grid(project, moving, plan.events, plan.seeds, asked.delay_seconds)
    inputs = inputs_in_use(project, log.first(plan.events))
    size = _size(plan, rows, is_all=rows < (asked.events or MOST_EVENTS))
    longer = seconds_of(whole(MOST_SEEDS), cost, rows, asked.jobs) if cost else None
    left_out = [_learnt(size, moving[MOST_INPUTS:]), *([_LOGGED] if log.logged else []), *_more(plan, rows, longer)]
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
