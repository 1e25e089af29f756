"""The processes of a run: started, killed, frozen, and started again when they have ended, as compose would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from lab.dev.processes import Stage, graft_argv
from runtime.child import start_child, stop_child

_ROOT = Path(__file__).parents[2]
_RESTART_SECONDS = 0.3
_STOP_SECONDS = 30.0


class Ended(NamedTuple):
    """A process that ended although nobody killed it; `seconds` since the run began."""

    seconds: float
    name: str
    code: int
    last_line: str


class Processes:
    """Keeps the stages running; a context manager that ends all of them.

    `tick` is to be called often, from the thread that the processes shall live as long as.
    """

    def __init__(self, log_folder: Path, seconds: Callable[[], float]) -> None:
        self.log_folder = log_folder
        self.ended: list[Ended] = []
        self._seconds = seconds
        self._argv: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: set[int] = set()
        self._start_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self._running)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages that are kept running."""
        return tuple(self._argv)

    def start(self, stage: Stage, module: str | None = None) -> None:
        """Run ``graft ARGUMENTS``, or ``python -m MODULE ARGUMENTS``, and keep it running from now on."""
        argv = [sys.executable, "-m", module, *stage.arguments] if module else graft_argv(stage.arguments)
        self._argv[stage.name] = argv, {**os.environ, **stage.environment}
        self._start(stage.name)

    def tick(self) -> None:
        """Note what has ended, and start it again a moment later."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if process.pid not in self._killed:
                self.ended.append(Ended(self._seconds(), name, code, self._last_line(name)))
            self._start_at[name] = time.monotonic() + _RESTART_SECONDS
        for name, at in list(self._start_at.items()):
            if time.monotonic() >= at:
                del self._start_at[name]
                self._start(name)

    def kill(self, name: str) -> bool:
        """Kill a process with -9; False when it does not run at this moment."""
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            return False
        self._killed.add(process.pid)
        process.kill()
        return True

    def freeze(self, name: str) -> subprocess.Popen[bytes] | None:
        """Stop a process where it stands; None when it does not run at this moment. `thaw` lets it go on."""
        process = self._running.get(name)
        if process is not None:
            process.send_signal(signal.SIGSTOP)
        return process

    def stop(self, *names: str) -> None:
        """Ask processes to end, all at once, and wait for them; they are not started again."""
        stopping = [(name, self._running.pop(name, None)) for name in names]
        for name, process in stopping:
            self._argv.pop(name, None)
            self._start_at.pop(name, None)
            if process is not None:
                process.terminate()
        for _, process in stopping:
            if process is not None:
                stop_child(process, _STOP_SECONDS)

    def _start(self, name: str) -> None:
        argv, environment = self._argv[name]
        with self._log(name).open("ab") as log:
            self._running[name] = start_child(argv, env=environment, stdout=log, stderr=log, cwd=_ROOT)

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else ""

    def _log(self, name: str) -> Path:
        return self.log_folder / f"{name}.log"


def thaw(process: subprocess.Popen[bytes] | None) -> None:
    """Let a frozen process go on; nothing where it has ended since."""
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGCONT)
