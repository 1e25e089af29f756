"""Grids, and the whole command on a small one."""

import json
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from graft.cli import cli
from graft.project import load_project
from lab.study.grid import SHIPPED, Grid, TeacherChange, Variant, load_grid
from lab.study.plan import cells_of
from runtime.errors import ConfigurationError
from tests.lab.study.conftest import Pair

_GRID = """
events = 600
seeds = 2
baseline = "plain"
windows = [0, 300, 600]
traffic = [100, 200]
[[variants]]
name = "plain"
[[variants]]
name = "permuted"
teacher = { permuted = true }
[[variants]]
name = "as_input"
teacher_as_input = true
without = ["*"]
[[variants]]
name = "whole"
question = "What more helps?"
bootstrap = true
tables = { bootstrap = { rows = 200, steps = 5 }, unshown = { ratio = 1 } }
[[variants]]
name = "regression"
learner = false
seeds = 1
"""


_TEMPLATES = files("lab.pairs")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cell_of_a_shipped_grid_is_a_sound_learner_of_its_pair(name: str, pair: Pair) -> None:
    """The spec of another pair is no matter: nothing of a grid is checked against it."""
    grid, home = load_grid(name), "simulated" if name == "simulated" else "movielens"
    project = load_project(Path(str(_TEMPLATES / home / "template")))
    cells = cells_of(grid, project, pair.spec)
    assert len(cells) == sum(variant.seeds or grid.seeds for variant in grid.variants)
    assert {cell.project.learner_setup(pair.spec).student.seed for cell in cells} == set(range(1, 11))


def test_a_variant_without_a_sound_learner_is_named_before_the_first_cell_runs(pair: Pair) -> None:
    heads = Variant(name="heads", heads={"loss": "listwise"})
    blind = Variant(name="blind", teacher=TeacherChange(defaulted=["colour"]))
    with pytest.raises(ConfigurationError) as caught:
        cells_of(Grid(baseline="heads", variants=[heads, blind]), pair.project, pair.spec)
    first, second = caught.value.faults
    assert first.startswith("variant heads: distillation.1.loss: must not be 'listwise'")
    assert second.startswith("variant blind: teacher.defaulted: no input 'colour'")


def test_a_teacher_task_that_is_not_distilled_is_named_with_those_that_are(pair: Pair) -> None:
    variant = Variant(name="v", head={"like": {"weight": 3.0}}, without=["rating"])
    with pytest.raises(ConfigurationError) as caught:
        cells_of(Grid(baseline="v", variants=[variant]), pair.project, pair.spec)
    assert caught.value.faults == (
        "variant v: head: no distilled teacher task 'like'; there are play, watch, follow",
        "variant v: without: no distilled teacher task 'rating'; there are play, watch, follow",
    )


def test_a_grids_tables_hold_for_every_variant_and_a_variants_before_them(pair: Pair) -> None:
    own = Variant(name="own", tables={"student": {"micro_batch": 8}})
    tables = {"student": {"micro_batch": 4, "replay_batches": 1}}
    grid = Grid(seeds=1, baseline="plain", tables=tables, variants=[Variant(name="plain"), own])
    students = [cell.project.student for cell in cells_of(grid, pair.project, pair.spec)]
    assert [(student.micro_batch, student.replay_batches) for student in students] == [(4, 1), (8, 1)]


def test_a_variant_changes_what_it_names_and_nothing_else(pair: Pair) -> None:
    variant = Variant(
        name="v",
        heads={"weight": 2.0},
        head={"play": {"weight": 3.0}},
        without=["follow"],
        tables={"unshown": {"ratio": 1}},
    )
    project = variant.project(pair.project, seed=5)
    assert [(row.teacher_task, row.weight) for row in project.distillation] == [("play", 3.0), ("watch", 2.0)]
    assert (project.student.seed, project.unshown.ratio) == (5, 1)
    assert project.student.model_copy(update={"seed": pair.project.student.seed}) == pair.project.student


def test_a_value_that_does_not_fit_is_named_with_its_variant(pair: Pair) -> None:
    grid = Grid(baseline="v", variants=[Variant(name="v", heads={"weight": -1})])
    with pytest.raises(ConfigurationError, match=r"variant v: distillation.0.weight: must be >= 0, got -1"):
        cells_of(grid, pair.project, pair.spec)


def test_a_grid_that_is_nowhere_says_which_there_are() -> None:
    with pytest.raises(ConfigurationError, match="headline, full, whole, simulated"):
        load_grid("nothing")


def _study(project: Path, folder: Path, *more: str) -> dict[str, object]:
    (folder / "grid.toml").write_text(_GRID)
    arguments = ["study", str(project), "--grid", str(folder / "grid.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(cli, [*arguments, "--jobs", "1", "--json", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_the_command_writes_the_headline_and_skips_what_is_finished(pair: Pair, tmp_path: Path) -> None:
    project = pair.project.folder
    headline = _study(project, tmp_path)
    assert json.loads((tmp_path / "out" / "headline.json").read_text()) == headline
    _assert_schema(headline)
    assert (headline["pair"], headline["seeds"], headline["steps_equal"]) == ("simulated", 2, True)
    tables = (tmp_path / "out" / "study.md").read_text()
    assert "What more helps? (600 examples)" in tables
    assert f"graft {version('graft')}; " in tables
    assert "Seeds from 1 on: 2 of plain, permuted, as_input, whole; 1 of regression." in tables
    best = json.loads((project / "truth.json").read_text())["best_auc"]["click"]
    (header,) = (line for line in tables.splitlines() if line.startswith("| examples |"))
    (all_,) = (line for line in tables.splitlines() if line.startswith("| all |"))
    assert (header.split(" | ")[-1], all_.split(" | ")[-1]) == ("best possible, whole stream |", f"{best:.4f} |")
    assert "Traffic: `click`" in tables
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "windows-click.png",
        "traffic-click.png",
        "variants-click.png",
    }
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    assert len(finished) == 9
    assert _study(project, tmp_path) == headline
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()} == finished


def _assert_schema(headline: dict[str, Any]) -> None:
    """What a reader of headline.json may count on, key by key."""
    part = {"auc", "gain", "transferability"}
    assert headline.keys() == {"pair", "events", "seeds", "steps_equal", "bootstrap_steps", "served", "windows"} | part
    assert headline["served"].keys() == {"click"}
    windows = headline["windows"]
    assert isinstance(windows, list)
    assert [(window["from"], window["to"]) for window in windows] == [(0, 300), (300, 600)]
    for found in (headline, *windows):
        assert found.keys() >= part
        assert {task: set(arms) for task, arms in found["auc"].items()} == {
            "click": {"student", "control", "teacher", "teacher_as_input", "permuted"}
        }
        assert found["gain"]["served"].keys() == {"click"}
        gain, arms = found["gain"]["click"], found["auc"]["click"]
        assert gain.keys() == {"mean", "low", "high"}
        assert gain["low"] < gain["mean"] < gain["high"]
        assert gain["mean"] == pytest.approx(arms["student"] - arms["control"])
        assert found["transferability"].keys() == {"click"}
    assert all(window.keys() == part | {"from", "to"} for window in windows)
