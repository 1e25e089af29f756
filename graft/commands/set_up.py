"""``graft set-up``: all that a pair needs before its first event, once."""

import subprocess
import sys
from pathlib import Path

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin
from runtime.errors import GraftError
from runtime.log_format import say


@click.command("set-up")
@click.argument("pair", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def set_up(project_folder: Path | None, pair: Path, *, as_json: bool) -> None:
    """Copy a pair into the project folder, and do all that it needs before its first event.

    That is: check, features apply, features materialize, teacher profile, student bootstrap. What has been done is not
    done again, until a file of PAIR changes or Redis or the registry is lost. A project folder that is another pair's
    is refused.

    Example: GRAFT_PROJECT=/project graft set-up /pair
    """
    from graft.project import load_project
    from graft.set_up import set_up as set_up_pair
    from student.versions.registry import Registry

    process = begin(project_folder)
    folder = process.settings.project.resolve()

    def step(project: Path, *words: str) -> None:
        """One command in a process of its own, so that what one imports is not held for the next."""
        say(f"set-up: graft {' '.join(words)}")
        argv = [sys.executable, "-m", "graft", "--project", str(project), *words]
        done = subprocess.run(argv, check=False, stdout=sys.stderr)  # noqa: S603 - our own commands
        if done.returncode:
            raise GraftError(f"'graft {' '.join(words)}' failed; its lines above say why")

    loaded = load_project(pair)
    done = set_up_pair(loaded, folder, process.redis_url, Registry(process.settings.versions), step)
    line = f"{loaded.name}: set up {', '.join(done)}" if done else f"{loaded.name}: is set up; nothing was to be done"
    echo_result([line], {"project": loaded.name, "done": done}, as_json=as_json)
