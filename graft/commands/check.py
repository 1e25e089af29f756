"""``graft check``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.output import echo_json, json_option
from graft.process import Process, begin
from runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from graft.check import Summary


@click.command
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def check(project_folder: Path | None, folder: Path | None, *, as_json: bool) -> None:
    """Validate graft.toml against the feature repository and the teacher; needs no server but the teacher's.

    FOLDER is the project's; without it the one that --project names.

    Every fault is listed at once, each with its key, the value and what is allowed. Exit code 2 when there is one.

    Example: graft check my-pair
    """
    try:
        summary = _check(begin(folder or project_folder))
    except ConfigurationError as error:
        if as_json:
            echo_json({"faults": error.faults})
            raise SystemExit(error.exit_code) from error
        raise
    if as_json:
        echo_json(json.loads(summary.model_dump_json()))
    else:
        click.echo("\n".join(summary.lines()))


def _check(process: Process) -> "Summary":
    from graft.check import check_project

    return check_project(process.settings.project, process.redis_url, process.teacher_access)
