"""A study scores a log with the teacher, and tells what is left without the logits of its own examples."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from graft.cli import cli
from graft.project import Project
from lab.study.grid import Grid, TeacherChange, Variant
from lab.study.learners.plan import Keys, cells_of
from lab.study.learners.teachers import DayZero, StudyTeacher, kept_logits, requests_of
from lab.study.learners.worker import Worker, Workplace
from lab.study.log.study_log import StudyLog, read_log, write_log
from lab.study.studied import OTHER_CUT_OFF, with_other_cut_off
from stream.positions import ArchivedLogits
from tests.lab.study.conftest import Pair

COUNT = 300
NONE = TeacherChange()


@pytest.fixture(scope="session")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of the first examples, with logits that the teacher would not give: a study scores all anew."""
    folder = tmp_path_factory.mktemp("logged") / "log"
    archived = ArchivedLogits("0" * 16, [0.5] * len(pair.project.teacher.tasks))
    write_log(folder, [record._replace(archived=archived) for record in pair.log.first(COUNT).records])
    return folder


@pytest.fixture
def log(pair: Pair, folder: Path) -> StudyLog:
    return read_log(folder, pair.spec)


def cut(project: Project, log: StudyLog, at: int, **changes: Any) -> Project:
    """The project whose teacher was trained until the example at that place came."""
    moment = datetime.fromtimestamp(log.event_times_ms[at] / 1000, UTC)
    teacher = project.teacher.model_copy(update={"trained_until": moment, **changes})
    return project.model_copy(update={"teacher": teacher})


def scored(pair: Pair, log: StudyLog) -> NDArray[np.float32]:
    return StudyTeacher(NONE, pair.project, pair.spec).score_all(requests_of(log)).logit_BT


def test_every_impression_is_scored_anew(pair: Pair, log: StudyLog, tmp_path: Path) -> None:
    """A changed teacher too; the log's own logits are those of the last impression of a user and an item."""
    logit_NT = scored(pair, log)
    np.testing.assert_array_equal(kept_logits(tmp_path / "a.npz", NONE, pair.project, log), logit_NT)
    permuted = kept_logits(tmp_path / "b.npz", TeacherChange(permuted=True), pair.project, log)
    np.testing.assert_allclose(np.sort(permuted, axis=0), np.sort(logit_NT, axis=0), rtol=1e-6)
    assert log.key == pair.log.first(COUNT).key


def test_examples_from_before_the_training_data_end_have_no_logit(pair: Pair, log: StudyLog, tmp_path: Path) -> None:
    project = cut(pair.project, log, 150)
    may = np.array(log.event_times_ms) >= log.event_times_ms[150]
    whole = kept_logits(tmp_path / "a.npz", NONE, pair.project, log)
    logit_NT = kept_logits(tmp_path / "a.npz", NONE, project, log)
    np.testing.assert_array_equal(logit_NT[may], whole[may])
    assert np.isnan(logit_NT[~may]).all()
    used = kept_logits(tmp_path / "a.npz", NONE, cut(pair.project, log, 150, use_before_trained_until=True), log)
    np.testing.assert_array_equal(used, whole)


@pytest.mark.parametrize("used", [False, True])
def test_a_grid_gets_the_other_side_of_the_cut_off_where_there_is_one(pair: Pair, log: StudyLog, used: bool) -> None:  # noqa: FBT001
    grid = Grid(seeds=1, baseline="v", variants=[Variant(name="v")])
    assert with_other_cut_off(grid, pair.project, log) is grid
    assert with_other_cut_off(grid, cut(pair.project, log, 0), log) is grid
    project = cut(pair.project, log, 150, use_before_trained_until=used)
    cells = cells_of(with_other_cut_off(grid, project, log), project, pair.spec)
    assert [cell.variant.name for cell in cells] == ["v", OTHER_CUT_OFF, "plain_models"]
    froms = [cell.project.teacher.logits_from_ms for cell in cells]
    moment_ms = log.event_times_ms[150]
    assert froms == ([0, moment_ms, 0] if used else [moment_ms, 0, moment_ms])
    day_zero = DayZero(pair.day_zero.sources, [], [], 0)
    results = {Keys(log, day_zero).result(cell) for cell in cells}
    assert len(results) == 3


def test_no_learner_begins_with_a_bootstrap_before_the_training_data_end(
    pair: Pair, log: StudyLog, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = Variant(name="v", bootstrap=True, tables={"bootstrap": {"rows": 200, "steps": 5}})
    grid = Grid(seeds=1, baseline="v", variants=[variant])
    day_zero = DayZero(*pair.day_zero[:3], log.event_times_ms[0])
    place = Workplace(folder, pair.spec, day_zero, Keys(log, day_zero), tmp_path / "out")
    monkeypatch.setattr(Worker, "place", place, raising=False)
    begun = {}
    for at in (0, 150):
        cell = cells_of(grid, cut(pair.project, log, at), pair.spec)[0]
        begun[at] = Worker._teaching(cell, log, None).day_zero is not None
    assert begun == {0: True, 150: False}


@pytest.mark.usefixtures("without_workers")
def test_the_page_says_what_is_left_of_the_gain(pair: Pair, folder: Path, log: StudyLog, tmp_path: Path) -> None:
    home = Path(shutil.copytree(pair.project.folder, tmp_path / "pair"))
    toml = home / "graft.toml"
    moment = datetime.fromtimestamp(log.event_times_ms[150] / 1000, UTC).isoformat()
    (tmp_path / "grid.toml").write_text('seeds = 1\nbaseline = "v"\nwindows = [0]\n[[variants]]\nname = "v"\n')
    arguments = ["--project", str(home), "study", str(folder), "--grid", str(tmp_path / "grid.toml")]
    toml.write_text(toml.read_text().replace("[teacher]\n", f"[teacher]\ntrained_until = {moment}\n", 1))
    arguments += ["--out", str(tmp_path / "out"), "--jobs", "1", "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = "\n".join(json.loads(done.stdout)["answer"])
    early = sum(time_ms < log.event_times_ms[150] for time_ms in log.event_times_ms)
    assert f"{early} of 300 examples come before teacher.trained_until, {moment}" in said
    assert "student - control = " in said
    assert "without them" in said
    assert OTHER_CUT_OFF in (tmp_path / "out" / "study.md").read_text()
