import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError

_REDIS = "redis://localhost:6379/0"


def _break(folder: Path, *replacements: tuple[str, str]) -> None:
    path = folder / "graft.toml"
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def _check(folder: Path) -> Sequence[str]:
    from graft.check import check_project  # noqa: PLC0415 - only these tests pay for Feast

    with pytest.raises(ConfigurationError) as caught:
        check_project(folder, _REDIS)
    return caught.value.faults


def test_a_sound_project_is_summed_up(sound_project: Path) -> None:
    from graft.check import check_project  # noqa: PLC0415 - only these tests pay for Feast

    summary = check_project(sound_project, _REDIS)
    assert (summary.dense_columns, summary.categorical_columns) == (1, 2)
    assert (summary.teacher_inputs, summary.teacher_inputs_defaulted, summary.defaulted_share) == (2, 1, 0.5)
    scales = "gradient scale 2"
    assert summary.lines() == [
        "project tiny is sound",
        "  task like: binary, window 60 s",
        "  student: dense columns 1, categorical 2; features for the teacher alone 0",
        "  teacher t1: 2 inputs, 1 mapped, 1 defaulted (50%)",
        f"  distillation: teacher task like through an auxiliary head of like, weight 1, {scales}",
    ]


def test_faults_of_features_and_teacher_come_at_once(sound_project: Path) -> None:
    _break(sound_project, ('"users:age"]', '"users:aeg", "cars:speed"]'), ('output = "logit"', 'output = "lgoit"'))
    faults = _check(sound_project)
    assert any("'aeg'" in fault for fault in faults)
    assert any("'cars'" in fault for fault in faults)
    assert any("lgoit" in fault for fault in faults)


def test_faults_of_features_and_domain_map_come_at_once(sound_project: Path) -> None:
    _break(sound_project, ('"users:age"]', '"users:aeg"]'), ("[teacher.inputs.history]", "[teacher.inputs.histroy]"))
    faults = _check(sound_project)
    assert any("'aeg'" in fault for fault in faults)
    assert any("teacher.inputs.histroy" in fault for fault in faults)
    assert not any("no 'users:age'" in fault for fault in faults)  # it is sound as far as can be known


def test_faults_of_the_domain_map_come_at_once(sound_project: Path) -> None:
    _break(
        sound_project,
        ("[teacher.inputs.history]", "[teacher.inputs.histroy]"),
        ('feature = "users:age"', 'feature = "users:height"'),
    )
    faults = _check(sound_project)
    assert any("histroy" in fault for fault in faults)
    assert any("history" in fault for fault in faults)
    assert any("users:height" in fault for fault in faults)


def test_the_command_lists_the_faults_of_a_broken_project_as_json(sound_project: Path) -> None:
    _break(sound_project, ('"users:age"]', '"users:aeg"]'), ("teacher.onnx", "taecher.onnx"))
    command = [sys.executable, "-m", "graft", "--project", str(sound_project), "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    faults = json.loads(done.stdout)["faults"]
    assert done.returncode == 2
    assert any("'aeg'" in fault for fault in faults)
    assert any("taecher.onnx" in fault for fault in faults)
    assert "Traceback" not in done.stderr


def test_profiles_are_told_and_their_faults_named(sound_project: Path) -> None:
    from graft.check import check_project  # noqa: PLC0415 - only these tests pay for Feast

    definitions = sound_project / "feature_repo" / "definitions.py"
    pushed = """
from feast import PushSource
from feast.types import Array
taught = FeatureView(
    name="taught",
    entities=[user],
    schema=[Field(name="like", dtype=Float32)],
    source=PushSource(
        name="taught_push",
        batch_source=FileSource(path="data/taught.parquet", timestamp_field="event_timestamp"),
    ),
)
ranking = FeatureService(name="ranking", features=[users, taught])
"""
    definitions.write_text(definitions.read_text() + pushed)
    table = """
[[features.profiles]]
entity = "user"
push_source = "taught_push"
columns = { like = "like" }

[teacher]"""
    _break(sound_project, ('dense = ["users:age"]', 'dense = ["users:age", "taught:like"]'), ("\n[teacher]", table))
    assert check_project(sound_project, _REDIS).lines()[-1] == "  profile of each user over 64 items: like"

    _break(sound_project, ('{ like = "like" }', '{ like = "lkie" }'))
    key = "graft.toml: features.profiles.0.columns.like"
    assert list(_check(sound_project)) == [f"{key}: no such teacher task or vector, got 'lkie'; did you mean like?"]

    _break(sound_project, ('{ like = "lkie" }', '{ like = "like" }'))
    definitions.write_text(
        definitions.read_text().replace("dtype=Float32)],\n    source=Push", "dtype=Array(Float32))],\n    source=Push")
    )
    assert any("'taught:like'" in fault for fault in _check(sound_project))
