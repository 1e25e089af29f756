import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from graft.cli import cli
from lab.embedded import free_port
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

    summary = check_project(sound_project, f"redis://127.0.0.1:{free_port()}/0")
    assert (summary.dense_columns, summary.categorical_columns) == (1, 2)
    assert (summary.teacher_inputs, summary.teacher_inputs_defaulted) == (2, 1)
    scales = "gradient scale 2"
    not_checked = "whether the teacher's version is its name alone is not checked: Redis does not answer"
    assert summary.lines() == [
        "project tiny is sound",
        "  task like: binary, window 60 s",
        "  student: dense columns 1, categorical 2; features for the teacher alone 0",
        "  teacher t1: 2 inputs, 1 mapped, 1 defaulted (50%)",
        f"  generation of its logits {summary.teacher_generation}; {not_checked}",
        "  a logit for each user and item",
        f"  distillation: teacher task like through an auxiliary head of like, weight 1, {scales}",
    ]


def test_the_folder_may_be_named_as_for_the_commands_beside_it(sound_project: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["check", str(sound_project)])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "project tiny is sound"), told.output
    elsewhere = CliRunner().invoke(cli, ["--project", str(tmp_path), "check", str(sound_project)])
    assert elsewhere.stdout == told.stdout
    missing = CliRunner().invoke(cli, ["check", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "does not exist" in missing.output


def test_a_project_without_a_teacher_is_sound_and_what_still_names_one_is_a_fault(sound_project: Path) -> None:
    from graft.check import check_project  # noqa: PLC0415 - only these tests pay for Feast

    path = sound_project / "graft.toml"
    whole = path.read_text()
    path.write_text(whole.partition("[teacher]")[0])
    assert "  no teacher: the student learns from its labels alone" in check_project(sound_project, _REDIS).lines()
    distilled = "[[distillation]]" + whole.partition("[[distillation]]")[2]
    path.write_text(f"{whole.partition('[teacher]')[0]}{distilled}")
    faults = _check(sound_project)
    assert any("distillation.0.teacher_task: no such teacher task, got 'like'" in fault for fault in faults)


_FEATURES = ('"users:age"]', '"users:aeg"]')
_AGE = 'feature = "users:age"', 'feature = "users:height"'
_INPUT = "[teacher.inputs.history]", "[teacher.inputs.histroy]"


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        (
            [_FEATURES, ("teacher.onnx", "taecher.onnx"), ("window_seconds = 60", "window_seconds = -60")],
            ["tasks.0.window_seconds: must be > 0", "features.dense: no feature of view", "teacher.onnx: "],
        ),
        ([_FEATURES, _INPUT], ["features.dense: ", "teacher.inputs.histroy: ", "teacher.inputs.history: "]),
        ([_FEATURES, _AGE], ["features.dense: "]),  # whether it has users:height is not known
        ([_INPUT, _AGE], ["teacher.inputs.age.feature: ", "teacher.inputs.histroy: ", "teacher.inputs.history: "]),
        ([('version = "t1"', 'version = "t 1"'), _INPUT], ["teacher.version: "]),
        ([('output = "logit"', 'output = "lgoit"'), _INPUT], [".tasks.0.output: ", "histroy: ", "history: "]),
        ([('kind = "binary", out', 'kind = "x", out'), ('teacher_task = "like"', 'teacher_task = "x"')], [".0.kind: "]),
        ([("dense = [", "dnese = ["), ('service = "ranking"', "")], ["features.service: ", "features.dnese: "]),
        ([('name = "tiny"', 'name = "tiny"\nunshown = {}'), _FEATURES], ["unshown: was removed", "features.dense: "]),
        ([("[[distill", "[[teacher.vectors]]\n[[distill")], ["vectors.0.name: is missing", "vectors.0.output: is"]),
    ],
)
def test_faults_of_all_tables_come_at_once_and_none_that_follows_from_another(
    sound_project: Path, changes: list[tuple[str, str]], starts: list[str]
) -> None:
    _break(sound_project, *changes)
    faults = _check(sound_project)
    assert len(faults) == len(starts), faults
    assert all(start in fault for start, fault in zip(starts, faults, strict=True)), faults


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


def test_a_name_of_other_logits_is_an_error_that_says_what_changed(sound_project: Path, redis_url: str) -> None:
    environment = {"GRAFT_PROJECT": str(sound_project), "GRAFT_REDIS_URL": redis_url}

    def graft(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, [*arguments], env=environment)
        return result.exit_code, result.output

    assert graft("features", "apply")[0] == 0
    first = json.loads(graft("check", "--json")[1])
    assert (first["is_name_checked"], len(first["teacher_generation"])) == (True, 16)
    events = sound_project / "events.jsonl"
    shown = {"type": "impression", "impression_id": "i", "user_id": 1, "item_id": "a", "event_time_ms": 1}
    events.write_text(json.dumps(shown))
    backfill = "teacher", "backfill", "--events", str(events)
    assert graft(*backfill)[0] == 0
    assert graft("check")[0] == 0
    (row,) = json.loads(graft("teacher", "ls", "--json")[1])
    assert (row["generation"], row["names"], row["rows"], row["users"]) == (first["teacher_generation"], ["t1"], 1, 1)
    assert row["begun_where"].endswith(f"{sound_project}/teacher.onnx")

    _break(sound_project, ("default = 30", "default = 31"))
    for command in (("check",), backfill):
        code, output = graft(*command)
        assert code == 2, output
        assert "teacher.version: 't1' is the name of generation " + first["teacher_generation"] in output
        assert "inputs.age.default: was 30, is 31" in output
    found = json.loads(graft("teacher", "explain", "--cached", "--user", "1", "--item", "a", "--json")[1])
    assert [(one["is_current"], one["is_used"], one["logits"]) for one in found] == [(False, False, {"like": 30.0})]
    rows = json.loads(graft("teacher", "ls", "--json")[1])
    assert [(row["is_current"], row["rows"], row["names"]) for row in rows] == [(False, 1, ["t1"]), (True, 0, [])]

    _break(sound_project, ('version = "t1"', 'version = "t2"'))
    assert graft("check")[0] == 0
    assert graft(*backfill)[0] == 0
    found = json.loads(graft("teacher", "explain", "--cached", "--user", "1", "--item", "a", "--json")[1])
    assert [(one["is_used"], one["logits"]) for one in found] == [(False, {"like": 30.0}), (True, {"like": 31.0})]
    told = json.loads(graft("teacher", "ls", "current", "--json")[1])
    assert (told["rows"], told["counts"], told["hit_rate"], sum(told["ages"].values())) == (
        1,
        {"put:backfill": 1},
        None,
        1,
    )
    assert "put by: backfill 1" in graft("teacher", "ls", first["teacher_generation"])[1]
    assert graft("reset", "--yes", "--generation", told["generation"])[0] == 1
    assert graft("reset", "--yes", "--generation", "t1")[0] == 1
    assert graft("reset", "--yes", "--generation", first["teacher_generation"], "--dry-run")[0] == 0
    assert "removed generation" in graft("reset", "--yes", "--generation", first["teacher_generation"])[1]
    (row,) = json.loads(graft("teacher", "ls", "--json")[1])
    assert row["names"] == ["t2"]


def test_the_end_of_the_training_data_is_told_and_must_not_be_in_the_future(sound_project: Path) -> None:
    from graft.check import check_project  # noqa: PLC0415 - only these tests pay for Feast

    before = check_project(sound_project, _REDIS).teacher_generation
    _break(sound_project, ('version = "t1"', 'version = "t1"\ntrained_until = 2026-01-31T12:00:00Z'))
    summary = check_project(sound_project, _REDIS)
    told = "  teacher trained until 2026-01-31T12:00:00+00:00: examples before that learn nothing of it"
    assert told in summary.lines()
    assert summary.teacher_generation == before  # the same logits, used for fewer examples
    _break(sound_project, ("trained_until = 2026-01-31", "trained_until = 2999-01-31"))
    (fault,) = _check(sound_project)
    assert fault.startswith(
        "graft.toml: teacher.trained_until: must not be in the future, got 2999-01-31T12:00:00+00:00"
    )
