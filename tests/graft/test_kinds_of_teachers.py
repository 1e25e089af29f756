"""Backfill, explain and the learner's generation with teachers of each kind, as people use them."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from graft.cli import cli
from graft.commands.teacher.teacher_parts import ProjectTeacher
from graft.process import Process
from graft.settings import load_settings
from lab.embedded import free_port
from runtime.errors import ServiceUnavailableError
from runtime.outage import Outage, wait_for
from runtime.telemetry import StopSignal
from tests.graft.test_check_kinds import _ONNX, _change, _server
from tests.teacher_cache.v2_server import V2Server, running

CACHED = ("teacher", "explain", "--cached", "--user")


def _graft(folder: Path, redis_url: str, *arguments: str) -> Result:
    environment = {"GRAFT_PROJECT": str(folder), "GRAFT_REDIS_URL": redis_url}
    return CliRunner().invoke(cli, [*arguments], env=environment)


def _sum_server() -> V2Server:
    inputs = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("age", "history")]
    outputs = [{"name": "logit", "datatype": "FP32", "shape": [-1]}]
    return V2Server(inputs, outputs, lambda feeds: {"logit": feeds["age"] + feeds["history"]})


@pytest.fixture(params=["server", "dump"])
def project(request: pytest.FixtureRequest, sound_project: Path) -> Iterator[Path]:
    """The sound project with a teacher of this kind, which says 30 for each row but for those that the dump lacks."""
    if request.param == "server":
        with running(_sum_server()) as server:
            _change(sound_project, (_ONNX, _server(server.url)))
            yield sound_project
        return
    pq.write_table(pa.table({"who": [1], "what": ["a"], "logit": [30.0]}), sound_project / "logits.parquet")
    keys = '{who = "int", what = "str"}'
    inputs = '[teacher.inputs.who]\nkind = "feature"\nfeature = "user_id"\ndefault = -1\n'
    inputs += '[teacher.inputs.what]\nkind = "feature"\nfeature = "item_id"\ndefault = ""\n'
    text = (sound_project / "graft.toml").read_text()
    start, end = text.index("[teacher.inputs.age]"), text.index("[[distillation]]")
    (sound_project / "graft.toml").write_text(text[:start] + inputs + text[end:])
    _change(sound_project, (_ONNX, f'dump = {{path = "logits.parquet", model = "m", keys = {keys}}}\n'))
    yield sound_project


def test_backfill_and_explain_take_each_kind(project: Path, redis_url: str, tmp_path: Path) -> None:
    is_dump = (project / "logits.parquet").exists()
    assert _graft(project, redis_url, "check").exit_code == 0
    assert _graft(project, redis_url, "features", "apply").exit_code == 0
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": ["a", "b"]}), rows)
    done = _graft(project, redis_url, "teacher", "backfill", "--rows", str(rows), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["rows"], report["left_out"]) == ((1, 1) if is_dump else (2, 0))
    (found,) = json.loads(_graft(project, redis_url, *CACHED, "1", "--item", "a", "--json").stdout)
    assert found["logits"] == {"like": 30.0}
    told = json.loads(_graft(project, redis_url, "teacher", "explain", "--user", "2", "--item", "b", "--json").stdout)
    assert told["tasks"][0]["logit"] == (None if is_dump else 30.0)
    assert told["refusal"] == (
        "the dump does not have this row: its example learns from the labels alone" if is_dump else None
    )
    text = _graft(project, redis_url, "teacher", "explain", "--user", "2", "--item", "b").stdout
    assert ("no logits: the dump does not have this row" in text) == is_dump
    (listed,) = json.loads(_graft(project, redis_url, "teacher", "ls", "--json").stdout)
    assert listed["generation"] == told["generation"]


def test_a_process_that_starts_before_the_server_waits_for_it(
    sound_project: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _sum_server()
    server.port = free_port()
    _change(sound_project, (_ONNX, _server(server.url)))
    assert _graft(sound_project, redis_url, "features", "apply").exit_code == 0
    monkeypatch.setenv("GRAFT_PROJECT", str(sound_project))
    teacher = ProjectTeacher(Process(load_settings()))
    for needed in (lambda: teacher.generation, lambda: teacher.scoring):
        with pytest.raises(ServiceUnavailableError, match="does not answer"):
            needed()
    done = _graft(sound_project, redis_url, "teacher", "explain", "--user", "1", "--item", "a")
    assert done.exit_code == 1
    started = running(server)
    later = Timer(0.3, started.__enter__)
    later.start()
    try:
        outage = Outage("teacher", "waiting for it")
        assert wait_for(lambda: teacher.generation, outage, StopSignal()).made_of["server"]["model"] == "sister"
        assert wait_for(lambda: teacher.scoring, outage, StopSignal()).model.outputs == {"like": ()}
    finally:
        later.join()
        started.__exit__(None, None, None)
