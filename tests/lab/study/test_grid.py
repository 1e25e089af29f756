"""Grids, and the whole command on a small one."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from graft.cli import cli
from lab.study.grid import Grid, Variant, load_grid
from lab.study.learners.plan import cells_of
from lab.study.log.study_log import read_log
from runtime.errors import ConfigurationError
from tests.lab.study.conftest import Pair

_GRID = """
events = 600
seeds = 2
baseline = "plain"
windows = [0, 300, 500]
label_delay_seconds = 3600
thin = [0.5]
thin_draws = 1
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
question = "More"
bootstrap = true
tables = { bootstrap = { rows = 200, steps = 5 } }
"""


def test_a_variant_changes_what_it_names_and_nothing_else(pair: Pair) -> None:
    variant = Variant(
        name="v",
        heads={"weight": 2.0},
        tables={"bootstrap": {"rows": 200}},
    )
    project = variant.project(pair.project, seed=5)
    assert [(row.teacher_task, row.weight) for row in project.distillation] == [("play", 2.0), ("watch", 2.0)]
    left = variant.model_copy(update={"without": ["play"]}).project(pair.project, seed=5)
    assert [row.teacher_task for row in left.distillation] == ["watch"]
    assert (project.student.seed, project.bootstrap.rows) == (5, 200)
    assert project.student.model_copy(update={"seed": pair.project.student.seed}) == pair.project.student


def test_a_value_that_does_not_fit_is_named_with_its_variant(pair: Pair) -> None:
    grid = Grid(baseline="v", variants=[Variant(name="v", heads={"weight": -1})])
    with pytest.raises(ConfigurationError, match=r"variant v: distillation.0.weight: must be >= 0, got -1"):
        cells_of(grid, pair.project, pair.spec)


def test_a_key_of_an_earlier_release_is_told_to_go_and_a_misspelt_one_is_named(tmp_path: Path) -> None:
    old = 'traffic = [100]\nbaseline = "v"\n[[variants]]\nname = "v"\npriors = { user = 4 }\nteacher = { noise = 2 }\n'
    (tmp_path / "old.toml").write_text(old)
    with pytest.raises(ConfigurationError) as caught:
        load_grid(str(tmp_path / "old.toml"))
    told = sorted(fault.partition(": ")[2].partition(": was removed; ")[0] for fault in caught.value.faults)
    assert told == ["traffic", "variants.0.priors", "variants.0.teacher.noise"]
    (tmp_path / "new.toml").write_text('baseline = "v"\n[[variants]]\nname = "v"\nsay = "what"\n')
    with pytest.raises(ConfigurationError, match=r"variants.0.say: no such key; did you mean says"):
        load_grid(str(tmp_path / "new.toml"))


def test_a_grid_that_is_nowhere_says_which_there_are() -> None:
    with pytest.raises(ConfigurationError, match="graft has headline"):
        load_grid("nothing")


def test_a_grid_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b'baseline = "caf\xe9"\n')
    for name, why in (("folder.toml", "cannot be read: Is a directory"), ("latin.toml", "not valid TOML")):
        with pytest.raises(ConfigurationError, match=f"{name}: {why}"):
            load_grid(str(tmp_path / name))


def _study(project: Path, folder: Path, grid: str = _GRID) -> dict[str, object]:
    (folder / "grid.toml").write_text(grid)
    arguments = ["study", str(project), "--grid", str(folder / "grid.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(cli, [*arguments, "--jobs", "1", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.usefixtures("without_workers")
def test_the_command_writes_the_headline_and_skips_what_is_finished(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = pair.project.folder
    headline = _study(project, tmp_path)
    assert json.loads((tmp_path / "out" / "headline.json").read_text()) == headline
    _assert_schema(headline)
    assert (headline["pair"], headline["seeds"], headline["steps_equal"]) == ("simulated", 2, True)
    tables = (tmp_path / "out" / "study.md").read_text()
    assert "More: AUC of `click` (600 examples)" in tables
    assert f"graft {version('graft')}; " in tables
    assert "Seeds from 1 on: 2 of plain, permuted, as_input, whole." in tables
    assert "3,600 s, or at the close of the longest window, after theirs" in tables
    assert "### Answer" in tables
    assert "| 50 % | 1 | " in tables
    assert "**+" not in tables  # two seeds have no interval
    assert "**-" not in tables
    best = json.loads((project / "truth.json").read_text())["best_auc"]["click"]
    header, *_ = (line for line in tables.splitlines() if line.startswith("| examples |"))
    all_, *_ = (line for line in tables.splitlines() if line.startswith("| all |"))
    assert (header.split(" | ")[-1], all_.split(" | ")[-1]) == ("best possible, whole stream |", f"{best:.4f} |")
    plots = ("help", "windows", "thin", "variants")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"{plot}-{task}.png" for plot in plots for task in ("click", "dwell")
    }
    page = (tmp_path / "out" / "study.html").read_text("utf-8")
    assert page.count('<img src="data:image/png;base64,') == 8
    assert "Whether the teacher helps <code>click</code> cannot be told (that needs 5 seeds, 2 were learnt)." in page
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    assert len(finished) == 8 + 1 + 2
    monkeypatch.setattr("lab.study.report.plot_all", lambda *_: [])  # drawn once
    assert _study(project, tmp_path) == headline
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()} == finished


def _assert_schema(headline: dict[str, Any]) -> None:
    """What a reader of headline.json may count on, key by key."""
    part = {"auc", "gain", "transferability", "rmse", "rmse_saved"}
    run = {"pair", "events", "seeds", "steps_equal", "bootstrap_steps"}
    judged = {"served", "served_rmse", "windows", "thin", "harm", "calibration", "answer"}
    assert headline.keys() == judged | run | part
    assert headline["calibration"].keys() == {"click"}
    for found in headline["calibration"]["click"].values():
        assert found["ece"].keys() == {"student", "control"}
        assert found["unseen"]["rows"] > 0
        assert found["unseen"]["student"].keys() == {"min", "low", "median", "high", "max"}
    plain = {"lr", "lr_teacher", "bayes_bias", "online_lr"}
    learners = {"student", "control", "teacher", "teacher_as_input", "teacher_as_input_and_profiles", "permuted"}
    assert headline["served"]["click"].keys() == learners | plain
    assert headline["rmse"]["dwell"].keys() == headline["served_rmse"]["dwell"].keys() == learners | plain
    assert [(thin["share"], thin["task"]) for thin in headline["thin"]] == [(0.5, "click"), (1.0, "click")]
    for thin in headline["thin"]:
        gain = thin["student"] - thin["control"]
        assert thin["gain"] == {"mean": pytest.approx(gain), "low": None, "high": None}
        assert thin["served"].keys() == learners | plain | {"gain"}
    assert headline["harm"]["permuted"]["whole"] == pytest.approx(
        headline["auc"]["click"]["control"] - headline["auc"]["click"]["permuted"]
    )
    windows = headline["windows"]
    assert isinstance(windows, list)
    assert [(window["from"], window["to"]) for window in windows] == [(0, 300), (300, 500), (500, headline["events"])]
    for found in (headline, *windows):
        assert found.keys() >= part
        assert {task: set(arms) for task, arms in found["auc"].items()} == {"click": learners | plain}
        assert found["gain"]["served"].keys() == {"click"}
        gain, arms = found["gain"]["click"], found["auc"]["click"]
        assert gain.keys() == {"mean", "low", "high"}
        assert gain["low"] is gain["high"] is None  # two seeds
        assert gain["mean"] == pytest.approx(arms["student"] - arms["control"])
        assert found["transferability"].keys() == {"click"}
    assert all(window.keys() == part | {"from", "to"} for window in windows)


def test_every_study_has_the_plain_models_and_no_variant_takes_their_name(pair: Pair) -> None:
    cells = cells_of(Grid(seeds=3, baseline="v", variants=[Variant(name="v")]), pair.project, pair.spec)
    assert [(cell.variant.name, cell.is_plain) for cell in cells] == [("v", False)] * 3 + [("plain_models", True)]
    with pytest.raises(ValidationError, match="'plain_models' is the name of what every study has"):
        Grid(baseline="plain_models", variants=[Variant(name="plain_models")])


@pytest.mark.parametrize(
    ("grid", "needs"),
    [
        ({"events": 500}, 500),
        ({}, None),
        ({"events": 500, "thin": [0.1]}, None),  # a tenth of the users of the whole log
        ({"log_events": 300, "thin": [0.1]}, 300),  # of those whose examples are among the first
        ({"events": 500, "log_events": 300}, 300),
    ],
)
def test_no_more_is_joined_than_a_learner_needs(grid: dict[str, Any], needs: int | None) -> None:
    assert Grid(baseline="v", variants=[Variant(name="v")], **grid).needed_events == needs


@pytest.mark.usefixtures("without_workers")
def test_a_study_of_the_first_examples_joins_no_more(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.study.report.plot_all", lambda *_: [])  # not looked at
    _study(pair.project.folder, tmp_path, grid='events = 130\nseeds = 1\nbaseline = "v"\n[[variants]]\nname = "v"\n')
    (log,) = (tmp_path / "out" / "log").iterdir()
    assert read_log(log, pair.spec).examples == pair.log.examples[:130]


def test_a_project_that_is_not_sound_fails_before_anything_is_joined(pair: Pair, tmp_path: Path) -> None:
    """As `graft check` says it: of another file than the teacher's, with the fault of every part."""
    folder = Path(shutil.copytree(pair.project.folder, tmp_path / "pair"))
    toml = folder / "graft.toml"
    toml.write_text(toml.read_text().replace('onnx = "teacher.onnx"', 'onnx = "nowhere.onnx"'))
    done = CliRunner().invoke(cli, ["study", str(folder), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "nowhere.onnx" in done.output
    assert not (tmp_path / "out").exists()


def test_a_project_without_events_is_told_so(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.project.folder, tmp_path / "pair"))
    (folder / "events.jsonl").unlink()
    done = CliRunner().invoke(cli, ["study", str(folder), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "has no events.parquet or events.jsonl; put one there" in done.output
