"""`graft check` of each kind of teacher: sound ones are told, and faults come out at once with what to do."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from graft.check import check_project
from graft.cli import cli
from graft.project import load_project
from lab.embedded import free_port
from runtime.errors import ConfigurationError
from tests.teacher_cache.v2_server import V2Server, running

_REDIS = "redis://127.0.0.1:1/0"
_ONNX = 'onnx = "teacher.onnx"\n'


@pytest.fixture
def server() -> Iterator[V2Server]:
    inputs = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("age", "history")]
    outputs = [{"name": "logit", "datatype": "FP32", "shape": [-1]}]
    with running(V2Server(inputs, outputs, lambda feeds: {"logit": feeds["age"] + feeds["history"]})) as started:
        yield started


def _server(url: str, **changes: str) -> str:
    told = {"url": url, "model": "sister", **changes}
    return "server = {" + ", ".join(f'{key} = "{value}"' for key, value in told.items()) + "}\n"


def _change(folder: Path, *changes: tuple[str, str]) -> None:
    text = (folder / "graft.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "graft.toml").write_text(text)


def _faults(folder: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        check_project(folder, _REDIS)
    return [fault.replace(str(folder), "F") for fault in error.value.faults]


def test_a_server_and_a_dump_are_sound_and_each_is_a_generation_of_its_own(
    sound_project: Path, server: V2Server
) -> None:
    generations = {check_project(sound_project, _REDIS).teacher_generation}
    (sound_project / "logits").mkdir()
    (sound_project / "ages.json").write_text('{"7": 3}')
    dump = 'dump = {path = "logits", model = "sister", keys = {age = "int", history = "str"}}\n'
    inputs = (
        ('kind = "feature"\nfeature = "users:age"\ndefault = 30', 'kind = "default"\ndefault = 3'),
        ('kind = "default"\ndefault = 0.0', 'kind = "default"\ndefault = ""'),
    )
    before = _ONNX
    for table, changes in ((_server(server.url), ()), (dump, inputs)):
        _change(sound_project, (before, table), *changes)
        before = table
        summary = check_project(sound_project, _REDIS)
        assert any(line.startswith("  teacher t1: 2 inputs") for line in summary.lines())
        generations.add(summary.teacher_generation)
    assert len(generations) == 3


def test_none_and_two_kinds_are_told_and_what_follows_from_them_is_not(sound_project: Path) -> None:
    rule = "graft.toml: teacher: must have one of onnx, [teacher.server] and [teacher.dump], got"
    _change(sound_project, (_ONNX, ""))
    assert _faults(sound_project) == [f"{rule} none"]
    with pytest.raises(ConfigurationError, match="got none"):
        load_project(sound_project)
    served = _server("http://127.0.0.1:1")
    _change(sound_project, ('version = "t1"\n', f'version = "t1"\n{_ONNX}{served}'))
    assert _faults(sound_project) == [f"{rule} onnx and server"]
    _change(sound_project, (f"{_ONNX}{served}", 'onxn = "teacher.onnx"\n'))
    assert _faults(sound_project) == ["graft.toml: teacher.onxn: no such key; did you mean onnx?"]


def test_a_program_of_torch_export_is_to_be_exported_to_onnx(sound_project: Path) -> None:
    _change(sound_project, (_ONNX, 'torch_export = "teacher.pt2"\n'))
    told = "was removed; export the teacher to ONNX instead: docs/export-a-teacher.md"
    assert _faults(sound_project) == [f"graft.toml: teacher.torch_export: {told}"]


def test_faults_of_a_server_come_out_with_those_of_its_tasks_and_inputs(sound_project: Path, server: V2Server) -> None:
    table = _server(server.url)
    _change(sound_project, (_ONNX, table), ('output = "logit"', 'output = "lgoit"'), ("default = 30", 'default = "x"'))
    assert _faults(sound_project) == [
        "graft.toml: teacher.tasks.0.output: the teacher has no 'lgoit', it has logit",
        "graft.toml: teacher.inputs.age.default: must be a finite number, got 'x'",
    ]
    _change(sound_project, (table, table.replace("sister", "brother")))
    (fault, *_) = _faults(sound_project)
    assert "has answered 404" in fault
    assert "name a model and a version that it has in teacher.server" in fault
    _change(sound_project, (table.replace("sister", "brother"), table.replace("url", "ulr")))
    assert _faults(sound_project)[:2] == [
        "graft.toml: teacher.server.url: is missing",
        "graft.toml: teacher.server.ulr: no such key; did you mean url?",
    ]


def test_a_server_that_is_away_is_a_fault_beside_others(sound_project: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    _change(sound_project, (_ONNX, _server(url)), ("gradient_scale = 2", "gradient_scale = -2"))
    faults = _faults(sound_project)
    assert len(faults) == 2
    assert faults[0].startswith("graft.toml: distillation.0.gradient_scale: must be")
    told = f"graft.toml: teacher.server: {url} does not answer /v2/models/sister: Connection refused"
    assert faults[1].startswith(told)


def test_faults_of_a_dump_come_out_at_once(sound_project: Path) -> None:
    (sound_project / "logits").mkdir()
    pq.write_table(pa.table({"age": ["x"], "other": np.ones(1)}), sound_project / "logits" / "a.parquet")
    _change(sound_project, (_ONNX, 'dump = {path = "logits", model = "m", keys = {age = "int"}}\n'))
    assert _faults(sound_project) == [
        "graft.toml: teacher.dump.keys.age: F/logits/a.parquet: column 'age' is of type string, must be int",
        "graft.toml: teacher.tasks.0.output: F/logits/a.parquet has no column 'logit', it has age, other",
    ]


def test_the_command_sends_the_token_and_never_tells_it(
    sound_project: Path, server: V2Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _change(sound_project, (_ONNX, _server(server.url)))
    server.token = "s3cret-token"
    (tmp_path / "token").write_text("s3cret-token\n")
    monkeypatch.setenv("GRAFT_REDIS_URL", _REDIS)
    words = ["--project", str(sound_project), "check"]
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code == 2, refused.output
    assert "has answered 401" in str(refused.output)
    monkeypatch.setenv("GRAFT_TEACHER_TOKEN_FILE", str(tmp_path / "token"))
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "s3cret" not in refused.output + done.output
