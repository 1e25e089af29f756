"""Runs the stages as child processes and starts again what dies, as compose's restart policy would."""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from runtime.child import start_child, stop_child
from runtime.errors import GraftError
from runtime.folder import writing

_POLL_SECONDS = 0.1
_DEATHS = 5
_DEATHS_SECONDS = 300.0  # five deaths within it are no accident: a stage takes up to 20 s to start on a busy machine
_STOP_SECONDS = 20.0  # a learner writes its last version after SIGTERM
_TAIL_LINES = 15
_TAIL_BYTES = 16_384


class Trouble(NamedTuple):
    """How often a stage was started again, and the last line of its log before the last time."""

    restarts: int
    last_line: str


class Stage(NamedTuple):
    """One process of a session: its name, the arguments after `graft`, and what it needs in its environment.

    A stage that `ends` by itself is done when it ends with exit code 0. Every other end of a stage counts as a death.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    ends: bool = False


def graft_argv(arguments: Sequence[str]) -> list[str]:
    """The command line of ``graft ARGUMENTS`` with this very Python, beside the embedded broker."""
    return [sys.executable, "-m", "lab.dev.embedded_client", *arguments]


def log_tail(path: Path) -> str:
    """The last lines of a log, indented; says so when there are none."""
    lines = _last_lines(path)
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (the log is empty)"


def _last_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace").splitlines()


class RunningStage:
    """A stage and its process. `argv` is what runs; the log gets its standard output and error, restarts included."""

    def __init__(self, stage: Stage, argv: Sequence[str], log: Path) -> None:
        self.stage, self.log = stage, log
        self._argv = list(argv)
        self.trouble = Trouble(0, "")
        self.is_stopped = False
        self._deaths: deque[float] = deque(maxlen=_DEATHS)
        self.process = self._start()

    def restart_if_dead(self) -> str | None:
        """Start it again if it ended; the reason when it has died too often and stays dead."""
        code = self.process.poll()
        if code is None or self.is_done():
            return None
        self._deaths.append(time.monotonic())
        last_lines = _last_lines(self.log)
        self.trouble = Trouble(self.trouble.restarts, last_lines[-1] if last_lines else "")
        if len(self._deaths) == _DEATHS and self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS:
            return (
                f"graft {shlex.join(self.stage.arguments)} ended {_DEATHS} times within "
                f"{_DEATHS_SECONDS / 60:.0f} minutes, now with code {code}; "
                f"the end of {self.log}:\n{log_tail(self.log)}"
            )
        self.trouble = self.trouble._replace(restarts=self.trouble.restarts + 1)
        self.process = self._start()
        return None

    def is_done(self) -> bool:
        """Whether a stage that ends by itself has ended with exit code 0."""
        return self.stage.ends and self.process.poll() == 0

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL when the process has not ended in time."""
        stop_child(self.process, _STOP_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        with writing(self.log.parent):
            log = self.log.open("ab")
        with log:
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
                running.process.terminate()  # all at once, so that they end side by side
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

    def troubles(self) -> dict[str, Trouble]:
        """Of each stage, those that were stopped included."""
        return {name: running.trouble for name, running in self._stages.items()}

    def check(self) -> None:
        """Raise GraftError when a stage could not be kept alive."""
        if self._failure is not None:
            raise GraftError(self._failure)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            with self._lock:
                for running in self._stages.values():
                    if not running.is_stopped:
                        self._failure = self._failure or _restarted(running)


def _restarted(running: RunningStage) -> str | None:
    """Why it stays dead; a full disk may be the reason that it cannot even be started."""
    try:
        return running.restart_if_dead()
    except (OSError, GraftError) as error:
        return f"graft {shlex.join(running.stage.arguments)} ended and cannot be started again: {error}"
