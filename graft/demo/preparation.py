"""What comes before the stream, by graft's own commands: the project folder, its teacher, Feast's tables."""

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.child import start_child, stop_child
from graft.demo.data import Data
from graft.demo.plan import Plan
from graft.demo.processes import graft_argv, log_tail
from graft.demo.toml_table import with_values
from graft.errors import GraftError
from graft.project import FILE_NAME


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
    """Write the demo's own cadence into the project file: a short run needs its versions sooner."""
    path = folder / FILE_NAME
    text = with_values(path.read_text(encoding="utf-8"), "publish", {"every_seconds": plan.publish_seconds})
    path.write_text(with_values(text, "stream", {"idle_seconds": plan.idle_seconds}), encoding="utf-8")


PREPARE_FEATURES = [
    Command(("check",)),
    Command(("features", "apply")),
    Command(("features", "materialize")),
]


def run_command(command: Command, console: Console, folder: Path, environment: Mapping[str, str], log: Path) -> None:
    """Run it in `folder` to its end; GraftError with the end of its log when it fails."""
    console.print(f"$ {command}", highlight=False, markup=False)
    began = time.monotonic()
    env = {**os.environ, **environment}
    if command.shows_progress:
        code = _wait(start_child(graft_argv(command.arguments), env=env, cwd=folder))
        if code:
            raise GraftError(f"{command} ended with code {code}; see above")
        return
    with log.open("ab") as file, console.status(f"{command} ..."):
        code = _wait(start_child(graft_argv(command.arguments), env=env, stdout=file, stderr=file, cwd=folder))
    if code:
        raise GraftError(f"{command} ended with code {code}; the end of {log}:\n{log_tail(log)}")
    console.print(f"  done in {time.monotonic() - began:.0f} s", highlight=False)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        stop_child(process)
        raise
