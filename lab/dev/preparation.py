"""Prepares a project by graft's own commands: Feast's tables into Redis, the teacher's profiles, the first version."""

import os
import shlex
import subprocess
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.project import Project
from lab.dev.processes import graft_argv, log_tail
from runtime.child import start_child, stop_child
from runtime.errors import GraftError


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
                said = _said(process)
        if process.returncode:
            why = "see above" if command.shows_progress else f"the end of {self.log}:\n{log_tail(self.log)}"
            raise GraftError(f"{command} ended with code {process.returncode}; {why}")
        console.print(textwrap.indent(said.rstrip(), "  "), highlight=False, markup=False, soft_wrap=True)
        console.print(f"  {time.monotonic() - began:.0f} s", highlight=False)


def _said(process: subprocess.Popen[bytes]) -> str:
    """The whole standard output of the process; an exception such as Ctrl-C stops the process."""
    try:
        return process.communicate()[0].decode()
    except BaseException:
        stop_child(process)
        raise
