"""The grid of a study without one: what it has, and how much of it fits the time."""

from functools import partial
from pathlib import Path

import pytest

from graft.project import Project, load_project
from lab.study.grid import Grid
from lab.study.learners.cell import Result
from lab.study.planning import Cost, Plan, cost_of, default_grid, planned, seconds_of

BUDGET = 210.0
INPUTS = ["Clip.code", "clip_code", "age", "mood", "weather"]


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(Path(__file__).parents[3] / "fixtures" / "simulated")


def _grid(project: Project, seeds: int, events: int = 20_000) -> Grid:
    return default_grid(project, INPUTS, events, seeds, 0.0)


def test_it_has_the_project_its_inputs_at_their_default_and_a_share_of_the_users(project: Project) -> None:
    grid = _grid(project, 5, 9_000)
    assert [(variant.name, variant.teacher.defaulted, variant.seeds) for variant in grid.variants] == [
        ("project", [], None),
        ("without_1_clip_code", ["Clip.code"], 2),
        ("without_2_clip_code", ["clip_code"], 2),
        ("without_3_age", ["age"], 2),
        ("without_4_mood", ["mood"], 2),
    ]
    assert all(variant.bootstrap for variant in grid.variants)
    assert (grid.log_events, grid.events, grid.windows) == (9_000, None, [0, 3_000, 6_000, 9_000])
    assert (grid.thin, grid.thin_draws) == ([0.3], 5)


def test_without_a_teacher_it_has_the_student_and_a_share_of_the_users(project: Project) -> None:
    alone = project.model_copy(update={"teacher": None, "distillation": []})
    (variant,) = default_grid(alone, [], 9_000, 5, 0.0).variants
    assert (variant.name, variant.bootstrap) == ("project", False)


@pytest.mark.parametrize(("events", "windows"), [(20, [0, 6, 13, 20]), (2, [0, 1, 2]), (1, [0, 1])])
def test_a_log_of_a_few_examples_has_a_grid_too(project: Project, events: int, windows: list[int]) -> None:
    assert _grid(project, 1, events).windows == windows


def test_a_cell_costs_what_it_takes_to_start_and_then_so_much_an_example() -> None:
    told = {"variant": "project", "seed": 1, "steps": 9, "bootstrap_steps": 0, "scores": {}}
    probe = Result(**told, examples=500, seconds=8.0, learning_seconds=2.0)
    assert cost_of(probe) == Cost(start_seconds=6.0, example_seconds=0.004)


@pytest.mark.parametrize("cost", [Cost(5.0, 0.002), Cost(2.0, 0.001), Cost(12.0, 0.01)])
@pytest.mark.parametrize("rows", [20_000, 10_000_000])
def test_as_many_events_are_planned_as_fit_with_five_seeds(project: Project, cost: Cost, rows: int) -> None:
    plan = planned(cost, rows, 2, partial(_grid, project))
    assert plan.seeds == 5
    assert 500 < plan.events < rows
    assert plan.seconds == pytest.approx(seconds_of(_grid(project, 5), cost, plan.events, 2))
    assert plan.seconds <= BUDGET < seconds_of(_grid(project, 5), cost, plan.events + 100, 2)


def test_a_small_log_is_learnt_whole_with_more_seeds(project: Project) -> None:
    plan = planned(Cost(3.0, 0.002), 20, 2, partial(_grid, project))
    assert (plan.events, plan.seeds) == (20, 10)
    fewer = planned(Cost(20.0, 0.002), 20, 2, partial(_grid, project))
    assert fewer.events == 20
    assert 5 < fewer.seeds < 10
    assert fewer.seconds <= BUDGET


@pytest.mark.parametrize(("rows", "events"), [(20_000, 500), (20, 20)])
def test_a_learner_that_is_slow_to_start_learns_five_hundred_events_and_takes_longer(
    project: Project, rows: int, events: int
) -> None:
    plan = planned(Cost(60.0, 0.01), rows, 2, partial(_grid, project))
    assert (plan.events, plan.seeds) == (events, 5)
    assert plan.seconds > BUDGET


def test_what_is_asked_for_stays_as_it_is(project: Project) -> None:
    cost, grid_of = Cost(5.0, 0.002), partial(_grid, project)
    assert planned(cost, 20_000, 2, grid_of, events=20_000)[:2] == (20_000, 5)
    assert planned(cost, 20_000, 2, grid_of, events=900)[:2] == (900, 10)
    one = planned(cost, 20_000, 2, grid_of, seeds=1)
    assert one.seeds == 1
    assert one.events > planned(cost, 20_000, 2, grid_of).events
    assert planned(cost, 300, 2, grid_of, events=900)[:2] == (300, 10)


def test_more_cores_learn_more(project: Project) -> None:
    two, four = (planned(Cost(5.0, 0.002), 20_000, jobs, partial(_grid, project)) for jobs in (2, 4))
    assert isinstance(two, Plan)
    assert (four.seeds, four.events) > (two.seeds, two.events)
