"""The teacher of a project folder, as commands open it."""

from pathlib import Path
from typing import Any

import pytest

from features.spec import Feature, save_spec
from graft.commands.teacher.teacher_parts import ProjectTeacher
from graft.process import Process
from graft.settings import load_settings
from runtime.errors import ConfigurationError, GraftError
from teacher_cache.kinds.load import load_teacher
from tests.specs import spec_of


@pytest.fixture
def teacher(sound_project: Path) -> ProjectTeacher:
    age = Feature(
        name="users:age", source="user", role="dense", dtype="float", default=0.0, view="users", feature="age"
    )
    save_spec(spec_of(age), sound_project / "feature_repo")
    return ProjectTeacher(Process(load_settings().model_copy(update={"project": sound_project})))


def test_the_digest_is_of_the_files_that_are_loaded(teacher: ProjectTeacher) -> None:
    digest = teacher.generation.digest
    assert teacher.scoring.model.inputs.keys() == {"age", "history"}
    assert teacher.generation.digest == digest


@pytest.mark.parametrize("digested_first", [True, False])
def test_a_file_that_is_replaced_between_its_digest_and_its_loading_ends_the_start(
    teacher: ProjectTeacher, sound_project: Path, monkeypatch: pytest.MonkeyPatch, *, digested_first: bool
) -> None:
    def replaced_meanwhile(*arguments: Any) -> Any:
        loaded = load_teacher(*arguments)
        new = sound_project / "new.onnx"
        new.write_bytes((sound_project / "teacher.onnx").read_bytes())
        new.replace(sound_project / "teacher.onnx")
        return loaded

    monkeypatch.setattr("teacher_cache.kinds.load.load_teacher", replaced_meanwhile)
    if digested_first:
        assert teacher.generation
    with pytest.raises(GraftError, match="the teacher's files changed while they were read; start again"):
        assert teacher.scoring


def test_a_folder_without_the_teachers_file_is_refused_also_for_a_learner(
    teacher: ProjectTeacher, sound_project: Path
) -> None:
    (sound_project / "teacher.onnx").unlink()
    with pytest.raises(ConfigurationError, match=r"teacher\.onnx cannot be read: No such file"):
        teacher.open_cache()
