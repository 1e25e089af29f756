"""``graft check``, ``graft set-up`` and ``graft features``: what a project needs before its first event.

Feast is imported only when graft.toml is sound.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.options import echo_json, echo_result, json_option, time_of
from graft.process import Process, begin
from runtime.errors import ConfigurationError, GraftError
from runtime.telemetry import say

if TYPE_CHECKING:
    from graft.check import Summary


@click.command
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def check(project_folder: Path | None, folder: Path | None, *, as_json: bool) -> None:
    """Validate graft.toml against the feature repository and the teacher; needs no server but the teacher's.

    FOLDER is the project's; without it the one that --project names.

    Every fault is listed at once, each with its key, the value and what is allowed. What depends on a table with a
    fault is checked when that one is gone. Exit code 2 when there is a fault.

    Example: graft check shop
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


@click.command("set-up")
@click.argument("source", metavar="PROJECT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def set_up(project_folder: Path | None, source: Path, *, as_json: bool) -> None:
    """Copy a project into the project folder, and do all that it needs before its first event.

    That is: check, features apply, features materialize, teacher backfill --profiles, student bootstrap. What has been
    done is not done again, until a file of PROJECT changes or Redis or the registry is lost. A project folder that is
    another project's is refused.

    Example: GRAFT_PROJECT=/project graft set-up /shop
    """
    from graft.project import load_project
    from graft.set_up import set_up as set_up_project
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

    loaded = load_project(source)
    done = set_up_project(loaded, folder, process.redis_url, Registry(process.settings.versions), step)
    line = f"{loaded.name}: set up {', '.join(done)}" if done else f"{loaded.name}: is set up; nothing was to be done"
    echo_result([line], {"project": loaded.name, "done": done}, as_json=as_json)


@click.command
@json_option
@click.pass_obj
def apply(project_folder: Path | None, *, as_json: bool) -> None:
    """Register the feature repository and save the spec that learner and scorer read.

    Example: graft features apply
    """
    process = begin(project_folder)
    project = process.project
    from features.repo import store

    spec = store.apply(project.repo, process.redis_url, project.features)
    result = {
        "spec_id": spec.spec_id,
        "features": len(spec.features),
        "dense_columns": len(spec.dense_names),
        "categorical_columns": len(spec.categorical),
    }
    columns = f"{len(spec.dense_names)} dense columns, {len(spec.categorical)} categorical"
    echo_result([f"applied {len(spec.features)} features ({columns}) as spec {spec.spec_id}"], result, as_json=as_json)


@click.command
@click.option(
    "--until", callback=time_of, metavar="TIME", help="Only values from before this time (ISO 8601; default: now)."
)
@json_option
@click.pass_obj
def materialize(project_folder: Path | None, until: datetime | None, *, as_json: bool) -> None:
    """Load the batch feature views into Redis; views that the stream pushes are left alone.

    Example: graft features materialize --until 2026-01-31T12:00:00Z
    """
    process = begin(project_folder)
    project = process.project
    from features.repo import store

    rows = store.materialize(project.repo, process.redis_url, project.features, until)
    echo_result([f"{view}: {count:,} rows" for view, count in rows.items()], rows, as_json=as_json)


@click.command
@click.option(
    "--keep",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="Of what is older keep each entity's newest row alone.",
)
@json_option
@click.pass_obj
def collect(project_folder: Path | None, keep: float | None, *, as_json: bool) -> None:
    """Bring what was pushed into the batch tables of the pushed views.

    After it Feast's get_historical_features gives running aggregates and profiles as they were read at each time. May
    run beside the stream; what it has brought over is removed from the push log.

    Example: graft features collect --keep 90
    """
    process = begin(project_folder)
    project = process.project
    from features.repo.batch_tables import collect as collect_log
    from features.repo.store import open_store, pushed_tables

    keep_from = None if keep is None else datetime.now(UTC) - timedelta(days=keep)
    tables = pushed_tables(open_store(project.repo, process.redis_url))
    fed = [aggregate.push_source for aggregate in project.features.aggregates]
    fed += [profile.push_source for profile in project.features.profiles]
    sources = [push_source for push_source in fed if push_source in tables]
    found = {tables[source].path.name: collect_log(tables[source], keep_from) for source in sources}
    lines = [f"{n}: {c.rows:,} rows of {c.entities:,} entities; {c.log_rows:,} in the log" for n, c in found.items()]
    nothing = ["nothing to collect: no pushed view that was applied has a Parquet file of this machine as its source"]
    echo_result(lines or nothing, {name: c._asdict() for name, c in found.items()}, as_json=as_json)
