"""The processes of a study end with it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.study.conftest import Pair

_SECONDS = 60.0  # far more than a worker takes to start; it ends within milliseconds


def _workers(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _await(what: str, found: Callable[[], bool]) -> None:
    until = time.monotonic() + _SECONDS
    while not found():
        assert time.monotonic() < until, f"not within {_SECONDS:g} s: {what}"
        time.sleep(0.05)


def _is_a_worker(pid: int) -> bool:
    """Its initializer has run: it watches over the study with a thread of its own."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"spawn_main" in command and len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except FileNotFoundError:
        return False


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists processes with Linux' /proc")
def test_the_workers_of_a_killed_study_end_too(pair: Pair, tmp_path: Path) -> None:
    command = ["study", str(pair.project.folder), "--jobs", "1", "--out", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-m", "graft", *command], stderr=subprocess.DEVNULL) as study:
        try:
            _await("a worker starts", lambda: any(map(_is_a_worker, _workers(study.pid))))
            workers = _workers(study.pid)
        finally:
            study.kill()
    _await("all workers end", lambda: not any(map(_is_running, workers)))
