"""Grids, and the whole command on a small one."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from graft.cli import cli
from graft.errors import ConfigurationError
from graft.study.grid import SHIPPED, Grid, TeacherChange, Variant, cells_of, load_grid
from tests.study.conftest import Pair

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
tables = { bootstrap = { pairs = 200, steps = 5 }, unshown = { ratio = 1 } }
[[variants]]
name = "regression"
learner = false
seeds = 1
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_grids_are_valid(name: str) -> None:
    assert load_grid(name).variants


def test_cells_that_learn_the_same_share_a_key(pair: Pair) -> None:
    same, other = Variant(name="same", says="words"), Variant(name="other", heads={"weight": 2.0})
    grid = Grid(seeds=1, baseline="plain", variants=[Variant(name="plain"), same, other])
    keys = [cell.key for cell in cells_of(grid, pair.project, "log")]
    assert keys[0] == keys[1] != keys[2]
    assert cells_of(grid, pair.project, "another log")[0].key != keys[0]


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
        cells_of(grid, pair.project, "log")


def test_a_grid_that_is_nowhere_says_which_there_are() -> None:
    with pytest.raises(ConfigurationError, match="headline, full, whole, simulated"):
        load_grid("nothing")


def test_teacher_changes_that_do_nothing_are_one() -> None:
    assert TeacherChange().key == TeacherChange(noise=0).key != TeacherChange(noise=1).key


def _study(pair: Pair, folder: Path, *more: str) -> dict[str, object]:
    (folder / "grid.toml").write_text(_GRID)
    arguments = ["study", str(pair.project.folder), "--grid", str(folder / "grid.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(cli, [*arguments, "--jobs", "1", "--json", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_the_command_writes_the_headline_and_skips_what_is_finished(pair: Pair, tmp_path: Path) -> None:
    headline = _study(pair, tmp_path)
    assert json.loads((tmp_path / "out" / "headline.json").read_text()) == headline
    assert (headline["pair"], headline["seeds"], headline["steps_equal"]) == ("simulated", 2, True)
    auc = headline["auc"]
    assert isinstance(auc, dict)
    assert set(auc["click"]) == {"student", "control", "teacher", "teacher_as_input", "permuted"}
    tables = (tmp_path / "out" / "study.md").read_text()
    assert "What more helps? (600 examples)" in tables
    assert "Traffic: `click`" in tables
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "windows-click.png",
        "traffic-click.png",
        "variants-click.png",
    }
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    assert len(finished) == 9
    assert _study(pair, tmp_path) == headline
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()} == finished
