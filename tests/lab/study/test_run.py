"""The processes of a study end with it, and tell what a learner costs."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lab.study.grid import Grid, Variant
from lab.study.learners.cell import Predictions, Result
from lab.study.learners.plan import Keys, cells_of
from lab.study.learners.worker import Workplace, run_cells
from lab.study.log.study_log import write_log
from runtime.errors import GraftError
from tests.lab.study.conftest import Pair, no_progress

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


class _Machine:
    """A machine with a clock of its own, on which the first learner is compiled in a minute, and each learns 2 s."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_compiled = False

    def monotonic(self) -> float:
        return self.seconds

    def learner(self, _setup: object) -> None:
        self.seconds += 0.0 if self._is_compiled else 60.0
        self._is_compiled = True

    def run_cell(self, cell: Any, *_: object) -> tuple[Result, Predictions]:
        self.learner(None)
        self.seconds += 2.0
        found = Result(variant=cell.variant.name, seed=cell.seed, examples=1, steps=1, bootstrap_steps=0, scores={})
        return found, Predictions(*[np.zeros((1, 1), np.float32)] * len(Predictions._fields))


@pytest.mark.usefixtures("without_workers")
def test_what_a_machine_compiles_on_its_first_start_is_no_cost_of_a_learner(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = _Machine()
    monkeypatch.setattr("lab.study.learners.worker.time", SimpleNamespace(monotonic=machine.monotonic))
    monkeypatch.setattr("lab.study.learners.worker.Learner", machine.learner)
    monkeypatch.setattr("lab.study.learners.worker.run_cell", machine.run_cell)
    grid = Grid(seeds=2, baseline="v", variants=[Variant(name="v", bootstrap=False)])
    write_log(tmp_path / "log", pair.log.records[:30])
    log = pair.log.first(30)
    place = Workplace(tmp_path / "log", pair.spec, pair.day_zero, Keys(log, pair.day_zero), tmp_path / "out")
    cells = [cell for cell in cells_of(grid, pair.project, pair.spec) if not cell.is_plain]
    assert [found.seconds for found in run_cells(cells, place, 1, no_progress)] == [2.0, 2.0]


class _Killed(ThreadPoolExecutor):
    """Workers that the kernel kills, for there is no memory left."""

    def __init__(self, jobs: int, *_: object) -> None:
        super().__init__(jobs)

    def submit(self, *_: Any) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
        return future


def test_a_killed_worker_ends_the_study_with_advice(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.study.learners.worker.ProcessPoolExecutor", _Killed)
    cells = cells_of(Grid(seeds=2, baseline="v", variants=[Variant(name="v")]), pair.project, pair.spec)
    place = Workplace(tmp_path, pair.spec, pair.day_zero, Keys(pair.log, pair.day_zero), tmp_path / "out")
    with pytest.raises(GraftError, match="start again with fewer --jobs than 2: what is finished is not"):
        run_cells(cells, place, 2, no_progress)
