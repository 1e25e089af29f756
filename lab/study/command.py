"""`graft study`: learns an example log again and again, and says in words what its teacher is worth."""

import os
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.options import echo_result, json_option
from graft.process import begin
from graft.progress import progress
from graft.project import FILE_NAME

if TYPE_CHECKING:
    from features.spec import FeatureSpec
    from graft.project import Project
    from lab.study.planning import Asked, PlannedStudy


@click.command
@click.argument("log", metavar="LOG", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--grid", "grid_name", help="A TOML file, or headline.  [default: what fits five minutes]")
@click.option(
    "--seeds", type=click.IntRange(1), help="Seeds of every learner.  [default: as many as fit, or the grid's]"
)
@click.option(
    "--events", type=click.IntRange(1), help="Only the first N examples.  [default: as many as fit, or the grid's]"
)
@click.option(
    "--label-delay-seconds",
    type=click.FloatRange(0),
    help="Served predictions know labels so long after their impression.  [default: its longest window, or the grid's]",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("study"), show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count,
    show_default="one for each core",
    help="Processes, one core each.",
)
@json_option
@click.pass_obj
def study(  # noqa: PLR0913 - one for each option
    project_folder: Path | None,
    *,
    log: Path,
    grid_name: str | None,
    seeds: int | None,
    events: int | None,
    label_delay_seconds: float | None,
    out: Path,
    jobs: int,
    as_json: bool,
) -> None:
    """Say in words whether the teacher helps, whom, against which plain model, and what is worth doing.

    LOG is a project folder, whose events are joined in memory, or an example log ('graft stream archive'). The stream's
    own learner learns it again and again, with the teacher and without, beside models without a student. Without --grid
    a first learner is timed, and as much is learnt as fits five minutes. Writes study.html (the answer and plots),
    study.md (all tables), headline.json, and small files of each finished learner to OUT. Another start skips what is
    finished and depends on the same log, teacher and settings. It does not notice that graft's own code has changed:
    after a change of what a learner learns, name another OUT. docs/grid.md has the keys of a grid.

    Example: graft study my-pair
    """
    from lab.study.grid import load_grid

    grid = load_grid(grid_name).limited(seeds, events, label_delay_seconds) if grid_name else None
    project, spec, events_file = _checked(project_folder, log)

    from lab.study.learners.plan import cells_of
    from lab.study.planning import (
        MOST_EVENTS,  # these import torch: a project with faults has ended before
        Asked,
        PlannedStudy,
    )
    from lab.study.report import write_report
    from lab.study.studied import studied

    if grid:
        cells_of(grid, project, spec)  # a variant that does not fit fails before anything is joined
        folder = _made_log(project, spec, events_file, out, grid.needed_events) if events_file else log
        planned = PlannedStudy(grid)
    else:
        folder = _made_log(project, spec, events_file, out, events or MOST_EVENTS) if events_file else log
        planned = _planned(Asked(events, seeds, label_delay_seconds or 0.0, jobs), project, spec, folder, out)
    with progress("study") as advance:
        found = studied(planned.grid, project, spec, folder, out=out, jobs=jobs, advance=advance)
    report = write_report(out, found, planned, project.name, f"graft {shlex.join(sys.argv[1:])}")
    echo_result(report.lines, report.summary, as_json=as_json)


def _checked(project_folder: Path | None, log: Path) -> "tuple[Project, FeatureSpec, Path | None]":
    """The project, which is LOG or what --project names, after 'graft check' found no fault; and its spec.

    Also the event file that is to be joined; None where LOG is an example log.
    """
    process = begin(log if (log / FILE_NAME).exists() else project_folder)

    from features.repo.store import compile_spec  # Feast, which takes seconds
    from graft.check import check_project
    from lab.study.log.memory_store import NO_REDIS

    check_project(process.settings.project, NO_REDIS, process.teacher_access)
    project = process.project
    events = project.event_file if log.resolve() == project.folder else None
    return project, compile_spec(project.repo, NO_REDIS, project.features), events


def _made_log(project: "Project", spec: "FeatureSpec", events: Path, out: Path, count: int | None) -> Path:
    """The example log of the project's own events, of the first `count` if not None; made once."""
    from lab.study.log.log_in_memory import log_key, records_of
    from lab.study.log.study_log import write_log
    from lab.study.studied import sources_of

    sources = sources_of(project)
    folder = out / "log" / f"{log_key(project, spec, sources, events)}{'' if count is None else f'-{count}'}"
    if not folder.exists():
        with progress("joining events") as advance:
            write_log(folder, islice(records_of(project, spec, sources, events, advance), count))
    return folder


def _planned(asked: "Asked", project: "Project", spec: "FeatureSpec", folder: Path, out: Path) -> "PlannedStudy":
    """The plan; it is printed before its learners start."""
    from lab.study.planning import plan_study

    with progress("first learner") as advance:
        planned = plan_study(asked, project, spec, folder, out, advance)
    seconds = f", about {planned.seconds:,.0f} s" if planned.seconds else ""
    click.echo(f"study: {planned.size}{seconds}, {asked.jobs} at a time", err=True)
    return planned
