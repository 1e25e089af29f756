"""The demo itself, small, with each of its processes killed once: the summary is still whole."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lab.demo.report import STUDY_PAGE
from lab.demo.run import Plan, run_demo
from lab.dev.run import NAME

_PLAN = Plan("simulated", impressions=1_500, compared=400, speed=150.0)
_COMMANDS = (("stream", "run"), ("teacher", "run"), ("student", "train"), ("student", "serve"))


class _Killer:
    """Kills each stage once with -9, the next one when the one before runs again and the learner goes on."""

    def __init__(self, versions: Path) -> None:
        self._versions = versions
        self._done = threading.Event()
        self.killed: list[tuple[str, ...]] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._kill_each)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _kill_each(self) -> None:
        self._wait_for(lambda: self._published() >= 2)  # the first one is published before the first example
        for command in _COMMANDS:
            pid = _process_of(command)
            if pid is None:
                return
            before = self._published()
            os.kill(pid, signal.SIGKILL)
            self.killed.append(command)
            self._wait_for(lambda pid=pid, command=command: _process_of(command) not in (None, pid))
            self._wait_for(lambda before=before: self._published() > before)

    def _published(self) -> int:
        return len(list(self._versions.glob("v*/manifest.json")))

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._done.wait(0.05):
            pass


def _process_of(command: tuple[str, ...]) -> int | None:
    """The child that runs ``graft COMMAND``."""
    for child in psutil.Process().children(recursive=True):
        with_arguments = _command_line(child)
        if any(tuple(with_arguments[i : i + 2]) == command for i in range(len(with_arguments))):
            return child.pid
    return None


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


@pytest.mark.slow
@pytest.mark.timeout(600)  # 80 s on two quiet cores
def test_kill_9_of_each_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    folder, report = tmp_path / "run", tmp_path / "report"
    folder.mkdir()
    before = set(psutil.Process().children(recursive=True))
    killer = _Killer(folder / "pair" / NAME / "run" / "versions")
    with killer.at_work():
        run = run_demo(_PLAN, folder, report, Console(stderr=True), "graft demo")
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))

    assert killer.killed == list(_COMMANDS)
    assert run.restarts == {"stream": 1, "teacher": 1, "learner": 1, "scorer": 1}
    assert run.faults == []
    assert (summary["impressions"], summary["examples"]) == (1_500, 1_500)
    assert (summary["missing"], summary["doubled"], summary["unknown"]) == (0, 0, 0)
    assert summary["dead_letters"] == 0
    assert summary["failed_requests"] == 0
    assert summary["requests"] > 100
    assert summary["swaps"] >= 3
    assert summary["cache_hit_rate"] > 0.5
    assert all(0 < auc["student"] < 1 and 0 < auc["control"] < 1 for auc in summary["auc"].values())
    assert all(0 < auc["served_student"] < 1 for auc in summary["auc"].values())
    assert summary["served_age_examples"] > 0
    assert 0 < summary["freshness_p50_s"] <= summary["freshness_p95_s"]
    study = summary["study"]
    assert study["events"] == 400
    models = {"student", "control", "teacher_as_input", "permuted", "lr", "lr_teacher", "bayes_bias"}
    assert all(models < scores.keys() for scores in study["auc"].values())
    assert all(scores[name] > 0 for scores in study["served"].values() for name in ("student", "lr_teacher"))
    assert study["answer"]
    assert (report / "index.html").exists()
    assert (report / STUDY_PAGE).exists()
    left_over = set(psutil.Process().children(recursive=True)) - before
    assert not left_over, "a process is left over"
