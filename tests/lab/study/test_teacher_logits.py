"""A study takes the teacher's logits from the log, and tells what is left without those of its own examples."""

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
from lab.study.learners.teachers import DayZero, StudyTeacher, kept_logits, requests_of, told_of
from lab.study.learners.worker import Worker, Workplace
from lab.study.log.study_log import KeptUsers, StudyLog, read_log, write_log
from lab.study.studied import OTHER_CUT_OFF, with_other_cut_off
from stream.events import UsedLogits, impression_mark
from stream.log.logit_archive import LogitArchive
from stream.log.used_logits import UsedRecord
from teacher_cache.cache.generation import generation_of
from tests.lab.study.conftest import Pair

COUNT = 300
TOLD = 200
NONE = TeacherChange()


@pytest.fixture(scope="session")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of the first examples, most of them with logits that the teacher would not give."""
    folder = tmp_path_factory.mktemp("logged") / "log"
    records = pair.log.first(COUNT).records
    write_log(folder, iter(records))
    archive = LogitArchive(folder, {}, None)
    tasks = len(pair.project.teacher.tasks)
    told = records[:TOLD]
    used = UsedLogits(
        topic_id=None,
        learner="a",
        generation=generation(pair.project, pair),
        offsets=[record.offset for record in told],
        impressions=[impression_mark(record.example.impression_id) for record in told],
        logits=[None if n % 10 == 0 else [n + 0.5] * tasks for n in range(TOLD)],
    )
    archive.add([UsedRecord(0, 0, used)])
    archive.flush()
    return folder


def generation(project: Project, pair: Pair) -> str:
    return generation_of(project.name, project.teacher, project.folder, pair.spec).digest


@pytest.fixture
def log(pair: Pair, folder: Path) -> StudyLog:
    return read_log(folder, pair.spec, generation(pair.project, pair))


def cut(project: Project, log: StudyLog, at: int, **changes: Any) -> Project:
    """The project whose teacher was trained until the example at that place came."""
    moment = datetime.fromtimestamp(log.event_times_ms[at] / 1000, UTC)
    teacher = project.teacher.model_copy(update={"trained_until": moment, **changes})
    return project.model_copy(update={"teacher": teacher})


def scored(pair: Pair, log: StudyLog) -> NDArray[np.float32]:
    return StudyTeacher(NONE, pair.project, pair.spec).score_all(requests_of(log)).logit_BT


def test_logits_of_the_log_take_the_place_of_the_teachers_file(pair: Pair, log: StudyLog, tmp_path: Path) -> None:
    logit_NT = kept_logits(tmp_path / "a.npz", NONE, pair.project, log)
    expected = [np.nan if n % 10 == 0 else n + 0.5 for n in range(TOLD)]
    np.testing.assert_array_equal(logit_NT[:TOLD, 0], np.array(expected, np.float32))
    np.testing.assert_array_equal(logit_NT[TOLD:], scored(pair, log)[TOLD:])


def test_another_teacher_is_scored_whatever_the_log_has(pair: Pair, log: StudyLog, tmp_path: Path) -> None:
    permuted = kept_logits(tmp_path / "a.npz", TeacherChange(permuted=True), pair.project, log)
    np.testing.assert_allclose(np.sort(permuted, axis=0), np.sort(scored(pair, log), axis=0), rtol=1e-6)
    inputs = dict(list(pair.project.teacher.inputs.items())[:])
    name = next(name for name, given in inputs.items() if given.kind == "default")
    inputs[name] = inputs[name].model_copy(update={"default": 1.0 if inputs[name].default != 1.0 else 2.0})
    teacher = pair.project.teacher.model_copy(update={"inputs": inputs})
    other = pair.project.model_copy(update={"teacher": teacher})
    assert set(told_of(NONE, other, log)) == {None}


def test_a_share_of_the_users_is_scored(pair: Pair, log: StudyLog) -> None:
    """Its running aggregates are others, and so would be the teacher's logits."""
    thinned = KeptUsers((example.user_id for example in log.examples), 0.5, 1).thinned(log)
    assert set(told_of(NONE, pair.project, thinned)) == {None}


def test_logits_are_part_of_what_a_log_is(pair: Pair, folder: Path, log: StudyLog) -> None:
    plain = read_log(folder, pair.spec)
    assert plain.logged is None
    assert read_log(folder, pair.spec, "0" * 16).logged is None  # it has none of that generation
    assert plain.key == pair.log.first(COUNT).key != log.key
    assert log.first(10).logged is not None
    assert len(log.first(10).logged.rows) == 10


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
def test_the_page_says_whose_logits_they_are_and_what_is_left_of_the_gain(
    pair: Pair, folder: Path, log: StudyLog, tmp_path: Path
) -> None:
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
    assert "200 of 300 examples have what their learner used" in said
    assert "which was none for 20 of them; those of the other 100 are scored with the teacher's file" in said
    assert f"{early} of 300 examples come before teacher.trained_until, {moment}" in said
    assert "student - control = " in said
    assert "without them" in said
    assert OTHER_CUT_OFF in (tmp_path / "out" / "study.md").read_text()
