"""Runs the stages as child processes and starts again what dies, as compose's restart policy would."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from runtime.child import start_child, stop_child
from runtime.errors import GraftError

_POLL_SECONDS = 0.1
_QUICK_DEATH_SECONDS = 20.0  # longer than the slowest stage takes to start (torch's import, on a busy machine)
_QUICK_DEATHS = 5
_STOP_SECONDS = 20.0  # a learner writes its last version after SIGTERM
_TAIL_LINES = 15


class Stage(NamedTuple):
    """One process of the path: its name, the arguments after `graft`, and what it needs in its environment.

    A stage that `ends` by itself is done when it ends with exit code 0. Every other end of a stage counts as a death.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    ends: bool = False


def graft_argv(arguments: Sequence[str]) -> list[str]:
    """The command line of ``graft ARGUMENTS`` with this very Python."""
    return [sys.executable, "-m", "graft", *arguments]


def log_tail(path: Path) -> str:
    """The last lines of a log, indented; says so when there are none."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (the log is empty)"


class RunningStage:
    """A stage and its process. `argv` is what runs; the log gets its standard output and error, restarts included."""

    def __init__(self, stage: Stage, argv: Sequence[str], log: Path) -> None:
        self.stage, self.log = stage, log
        self._argv = list(argv)
        self.restarts = 0
        self.is_stopped = False
        self._quick_deaths = 0
        self.process = self._start()

    def restart_if_dead(self) -> str | None:
        """Start it again if it ended; the reason when it died too quickly too often and stays dead."""
        code = self.process.poll()
        if code is None or self.is_done():
            return None
        quick = time.monotonic() - self._started_at < _QUICK_DEATH_SECONDS
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths >= _QUICK_DEATHS:
            return (
                f"graft {' '.join(self.stage.arguments)} ended {_QUICK_DEATHS} times in a row within "
                f"{_QUICK_DEATH_SECONDS:.0f} s of its start, now with code {code}; "
                f"the end of {self.log}:\n{log_tail(self.log)}"
            )
        self.restarts += 1
        self.process = self._start()
        return None

    def is_done(self) -> bool:
        """Whether a stage that ends by itself has ended with exit code 0."""
        return self.stage.ends and self.process.poll() == 0

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL when the process has not ended in time."""
        stop_child(self.process, _STOP_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_at = time.monotonic()
        with self.log.open("ab") as log:
            return start_child(self._argv, env={**os.environ, **self.stage.environment}, stdout=log, stderr=log)


class Supervisor:
    """Keeps the stages running; a context manager that ends all of them."""

    def __init__(self, log_folder: Path) -> None:
        self.log_folder = log_folder
        self._stages: dict[str, RunningStage] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            ending = [running for running in self._stages.values() if not running.is_stopped]
            for running in ending:
                running.is_stopped = True
                running.process.terminate()  # all at once: what is left here is not waited for one by one
        for running in ending:
            running.stop()
        # Only now: the kernel kills the children that a thread started as soon as that thread ends.
        self._stopping.set()
        self._watcher.join()

    def start(self, stage: Stage, argv: Sequence[str] | None = None) -> RunningStage:
        """Start a stage and watch it from now on; `argv` defaults to ``graft ARGUMENTS``."""
        running = RunningStage(stage, argv or graft_argv(stage.arguments), self.log_folder / f"{stage.name}.log")
        with self._lock:
            self._stages[stage.name] = running
        return running

    def stop(self, name: str) -> None:
        """Stop a stage; it is not started again."""
        running = self._stages[name]
        with self._lock:
            running.is_stopped = True
        running.stop()

    def is_done(self, name: str) -> bool:
        """Whether a stage that ends by itself has done so."""
        return self._stages[name].is_done()

    def process_id(self, name: str) -> int:
        """The process that runs the stage now."""
        return self._stages[name].process.pid

    def restarts(self) -> dict[str, int]:
        """Stage -> how often it was started again, those that were stopped included."""
        return {name: running.restarts for name, running in self._stages.items()}

    def check(self) -> None:
        """Raise GraftError when a stage could not be kept alive."""
        if self._failure is not None:
            raise GraftError(self._failure)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            with self._lock:
                for running in self._stages.values():
                    if not running.is_stopped:
                        self._failure = self._failure or running.restart_if_dead()
