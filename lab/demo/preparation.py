"""Prepares a demo by graft's own commands: the project, its teacher, Feast's tables, the first version."""

import os
import shlex
import subprocess
import textwrap
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.project import FILE_NAME
from lab.demo.data import Data
from lab.demo.plan import Plan
from lab.demo.processes import graft_argv, log_tail
from lab.demo.toml_table import Scalar, with_values
from runtime.child import start_child, stop_child
from runtime.errors import GraftError


class Command(NamedTuple):
    """``graft ARGUMENTS``, which ends by itself; `shows_progress` when it draws its own bar on the terminal."""

    arguments: tuple[str, ...]
    shows_progress: bool = False

    def __str__(self) -> str:
        return f"graft {shlex.join(self.arguments)}"


def make_pair(data: Data, plan: Plan) -> list[Command]:
    """The commands that write the project folder ``pair`` and train its teacher, run in its parent folder."""
    limit = ("--events", str(plan.impressions)) if plan.impressions else ()
    own = ("--movielens", str(data.own_copy)) if data.own_copy else ()
    return [
        Command(("pair", "make", data.name, "pair", *own, *limit), shows_progress=True),
        Command(("pair", "train-teacher", "pair"), shows_progress=True),
    ]


def set_pace(folder: Path, plan: Plan) -> None:
    """Write the demo's own pace into the project file: a short run needs more frequent versions."""
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8")
    pace: dict[str, Mapping[str, Scalar]] = {
        "publish": {"every_seconds": plan.publish_seconds},
        "stream": {"idle_seconds": plan.idle_seconds},
    }
    for table, values in pace.items():
        text = with_values(text, table, values)
    path.write_text(text, encoding="utf-8")


PREPARE_DAY_ZERO = [
    Command(("check",)),
    Command(("features", "apply")),
    Command(("features", "materialize")),
    Command(("teacher", "profile")),
    Command(("student", "bootstrap")),
]


def run_command(command: Command, console: Console, folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """Run the command in `folder` and show its output; GraftError, with the end of its log, when it fails.

    Its standard error goes to the file `log`, or to the terminal when it shows its own progress.
    """
    console.print(f"$ {command}", highlight=False, markup=False)
    began = time.monotonic()
    argv, env = graft_argv(command.arguments), {**os.environ, **environment}
    with log.open("ab") as file, nullcontext() if command.shows_progress else console.status(f"{command} ..."):
        stderr = None if command.shows_progress else file
        with start_child(argv, env=env, stdout=subprocess.PIPE, stderr=stderr, cwd=folder) as process:
            said = _said(process)
    if process.returncode:
        why = "see above" if command.shows_progress else f"the end of {log}:\n{log_tail(log)}"
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
