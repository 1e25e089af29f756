"""`graft dev` on a pair whose teacher's server fails: it ends as always."""

import shutil
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from student.versions.registry import Registry
from tests.lab.dev.test_dev import running as dev_running
from tests.lab.study.pair_kinds import served
from tests.teacher_cache.test_served_teacher import _FAULTS
from tests.teacher_cache.v2_server import V2Server, running

_PAIR = Path(__file__).parents[3] / "fixtures" / "simulated"
_IMPRESSIONS = (_PAIR / "events.jsonl").read_bytes().count(b'"type":"impression"')
_KINDS = cycle(("503", "dropped", "silent", "half", "no JSON", "429"))


class _EveryFifth:
    """Faults for one call in five, without an end; the kinds take turns."""

    def __init__(self) -> None:
        self.calls = 0

    def __bool__(self) -> bool:
        self.calls += 1
        return self.calls % 5 == 0

    def popleft(self) -> Callable[[BaseHTTPRequestHandler], None]:
        return _FAULTS[next(_KINDS)][0]


def _with_bad_rows(server: V2Server) -> None:
    """Let one row in a hundred have no finite logit."""
    compute = server.compute

    def answer(feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: np.array(output) for name, output in compute(feeds).items()}
        for output in found.values():
            output[np.arange(len(output)) % 100 == 99] = np.nan
        return found

    server.compute = answer


def _restart(server: V2Server, first: Any, done: threading.Event) -> None:
    """Take the server away for two seconds while the stream runs, then bring it back on its port."""
    done.wait(45)
    first.__exit__(None, None, None)
    done.wait(2)
    with running(server):
        done.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_teacher_that_fails_one_call_in_five_times_out_says_nan_and_restarts_changes_no_count(tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(_PAIR, folder)
    server = served(folder / "teacher.onnx")
    _with_bad_rows(server)
    server.faults = _EveryFifth()  # type: ignore[assignment]
    first, done = running(server), threading.Event()
    first.__enter__()
    text = (folder / "graft.toml").read_text()
    assert 'onnx = "teacher.onnx"' in text
    told = f'server = {{ url = "{server.url}", model = "sister", batch_rows = 256 }}'
    (folder / "graft.toml").write_text(text.replace('onnx = "teacher.onnx"', told))
    thread = threading.Thread(target=_restart, args=(server, first, done))
    thread.start()
    try:
        with dev_running(folder, "--exit", "--speed", "max") as running_dev:
            assert running_dev.wait() == 0, running_dev.text
            said = running_dev.text
    finally:
        done.set()
        thread.join()
    assert f"{_IMPRESSIONS:,} examples learnt" in said
    assert "dead letters" not in said.splitlines()[-1]
    assert server.faults.calls > 20
    versions = [path for path in folder.rglob("versions") if path.is_dir()]
    assert any(Registry(path).latest() for path in versions), said
