"""The processes of a session: the commands that prepare a project, and the stages, which are kept running.

Each is a graft command. The stages are the processes that compose runs, and what dies is started again as compose does.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console

from graft.project import Project
from graft.settings import PREFIX, Settings
from lab.embedded.servers import free_port
from lab.embedded.services import Services
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

    One that `ends` by itself is done when it ends with exit code 0. Every other end of a stage counts as a death.
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
        self._argv = argv
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
            stop_child(running.process, _STOP_SECONDS)
        # Only now: the kernel kills the children that a thread started as soon as that thread ends.
        self._stopping.set()
        self._watcher.join()

    def start(self, stage: Stage, argv: Sequence[str] | None = None) -> RunningStage:
        """Start a stage and watch it from now on; `argv` defaults to ``graft ARGUMENTS``."""
        running = RunningStage(stage, argv or graft_argv(stage.arguments), self.log_folder / f"{stage.name}.log")
        with self._lock:
            self._stages[stage.name] = running
        return running

    def is_done(self, name: str) -> bool:
        """Whether a stage that ends by itself has done so."""
        return self._stages[name].is_done()

    def troubles(self) -> dict[str, Trouble]:
        """Of each stage."""
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


STREAM, TEACHER, LEARNER, SCORER, REPLAY = "stream", "teacher", "learner", "scorer", "replay"

_TRANSPORTS = ["GRAFT_KAFKA_SASL_PASSWORD_FILE"] + [
    f"{PREFIX}{name.upper()}" for name in Settings.model_fields if re.match("kafka_|redis_ssl_", name)
]
"""The settings of how Kafka and Redis are reached, beside their addresses."""


class Ports(NamedTuple):
    """Where each process serves its metrics; the scorer's is its HTTP port. They stay over a restart."""

    stream: int
    teacher: int
    learner: int
    scorer: int


def choose_ports(scorer: int | None = None) -> Ports:
    """Free loopback ports; the scorer's may be given."""
    ports: list[int] = []
    while len(ports) < len(Ports._fields):
        if (port := free_port()) not in (*ports, scorer):
            ports.append(port)
    return Ports(*ports)._replace(scorer=scorer or ports[-1])


def environment_of(services: Services, project: Path, versions: Path) -> dict[str, str]:
    """The settings that all processes share. One thread each: there are more processes than cores."""
    settings = {"GRAFT_PROJECT": str(project), "GRAFT_VERSIONS": str(versions)}
    settings |= {"GRAFT_KAFKA": services.kafka, "GRAFT_REDIS_URL": services.redis_url}
    return {
        **settings,
        **{f"{name}_FILE": "" for name in settings},  # the user's own would contradict them
        **dict.fromkeys((name for name in _TRANSPORTS if name.startswith("GRAFT_REDIS")), ""),  # they are in the URL
        **(dict.fromkeys(_TRANSPORTS, "") if services.embedded_kafka else {}),
        "GRAFT_HTTP_TOKENS_FILE": "",  # the client of this process has none; the scorer is on loopback
        **dict.fromkeys(("GRAFT_METRICS_PORT", "GRAFT_ADMIN_PORT"), ""),  # the scorer's metrics are on its own port
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    }


def path_stages(environment: dict[str, str], ports: Ports, *, has_teacher: bool) -> list[Stage]:
    """The processes that run until they are stopped, in the order in which they are stopped."""
    commands = {STREAM: ("stream", "run"), TEACHER: ("teacher", "run"), LEARNER: ("student", "train")}
    scorer = ("student", "serve", "--host", "127.0.0.1", "--port", str(ports.scorer), "--workers", "1")
    stages = [
        Stage(name, command, {**environment, "GRAFT_METRICS_PORT": str(ports._asdict()[name])})
        for name, command in commands.items()
        if has_teacher or name != TEACHER
    ]
    return [*stages, Stage(SCORER, scorer, environment)]


def replay_stage(environment: dict[str, str], events: Path, pace: Sequence[str], max_lag: int) -> Stage:
    """The process that sends the events and ends. After a kill it goes on where it was."""
    arguments = ("replay", str(events), "--resume", "--max-lag", str(max_lag), *pace)
    return Stage(REPLAY, arguments, environment, ends=True)


class Command(NamedTuple):
    """``graft ARGUMENTS``, which ends by itself; `shows_progress` when it draws its own bar on the terminal."""

    arguments: tuple[str, ...]
    shows_progress: bool = False

    def __str__(self) -> str:
        return f"graft {shlex.join(self.arguments)}"


FEATURES = (Command(("check",)), Command(("features", "apply")), Command(("features", "materialize")))


def first_version(project: Project, bootstrap_events: Path | None = None) -> Iterator[Command]:
    """The commands before the first event, by which a version learns from the teacher alone; none without a teacher.

    `bootstrap_events`: a file with the users and items that it learns on; None: those of Feast's tables.
    """
    if project.features.profiles:
        yield Command(("teacher", "backfill", "--profiles"))
    if project.distillation:
        known = ("--events", str(bootstrap_events)) if bootstrap_events else ()
        yield Command(("student", "bootstrap", *known))


class Runner(NamedTuple):
    """Where commands run: the terminal, the folder, their settings, and the file that has their standard error."""

    console: Console
    folder: Path
    environment: Mapping[str, str]
    log: Path

    def run(self, command: Command) -> None:
        """Run the command and show its output; GraftError, with the end of its log, when it fails.

        Its standard error goes to the log, or to the terminal when it shows its own progress.
        """
        console = self.console
        console.print(f"$ {command}", highlight=False, markup=False, soft_wrap=True)
        began = time.monotonic()
        argv, env = graft_argv(command.arguments), {**os.environ, **self.environment}
        with self.log.open("ab") as file, nullcontext() if command.shows_progress else console.status(f"{command} ..."):
            stderr = None if command.shows_progress else file
            with start_child(argv, env=env, stdout=subprocess.PIPE, stderr=stderr, cwd=self.folder) as process:
                try:
                    output = process.communicate()[0].decode()
                except BaseException:  # such as Ctrl-C
                    stop_child(process)
                    raise
        if process.returncode:
            why = "see above" if command.shows_progress else f"the end of {self.log}:\n{log_tail(self.log)}"
            raise GraftError(f"{command} ended with code {process.returncode}; {why}")
        console.print(textwrap.indent(output.rstrip(), "  "), highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {time.monotonic() - began:.0f} s", highlight=False)
