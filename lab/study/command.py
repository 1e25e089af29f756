"""`graft study`: runs a grid of learners over an example log, and writes the results."""

import json
import os
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin
from graft.progress import progress
from graft.project import FILE_NAME
from lab.pairs.project_folder import EVENTS
from runtime.errors import ConfigurationError
from runtime.folder import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.spec import FeatureSpec
    from graft.project import Project
    from lab.study.calibration import Calibration
    from lab.study.studied import Studied


@click.command
@click.argument("log", metavar="LOG", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--grid",
    "grid_name",
    default="headline",
    show_default=True,
    help="A TOML file, or headline, full, whole, simulated.",
)
@click.option("--seeds", type=click.IntRange(1), help="Seeds of every variant; overrides the grid's.")
@click.option("--events", type=click.IntRange(100), help="Only the first N examples; overrides the grid's.")
@click.option(
    "--label-delay-seconds",
    type=click.FloatRange(0),
    help="Served predictions know labels so long after their impression; overrides the grid's.",
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
    grid_name: str,
    seeds: int | None,
    events: int | None,
    label_delay_seconds: float | None,
    out: Path,
    jobs: int,
    as_json: bool,
) -> None:
    """Learn LOG with every variant and seed of a grid, with the stream's own learner.

    LOG is an example log ('graft stream archive'), or a project folder, whose events are then joined in memory. Models
    without a student learn it beside them. Writes headline.json, study.md, plots, and small files of each finished
    learner to OUT, and says in words who is best, where, and what to change. Another start skips what is finished and
    depends on the same log, teacher and settings. It does not notice that graft's own code has changed: after a change
    of what a learner learns, name another OUT. docs/grid.md has the keys of a grid.

    Example: graft study my-pair --grid headline --out study
    """
    from lab.study.calibration import calibrations
    from lab.study.grid import load_grid
    from lab.study.headline import headline
    from lab.study.learner_log import FILE
    from lab.study.plan import cells_of
    from lab.study.studied import studied

    grid = load_grid(grid_name).limited(seeds, events, label_delay_seconds)
    project, spec = _checked(project_folder, log)
    cells_of(grid, project, spec)  # a variant that does not fit fails before anything is joined
    folder = _made_log(project, spec, out, grid.log_events) if log.resolve() == project.folder else log
    with progress("study") as advance:
        found = studied(grid, project, spec, folder, out=out, jobs=jobs, advance=advance)
    calibrated = calibrations(found.findings, found.log, found.predictions)
    summary = headline(found.findings, project.name, found.verdict, calibrated)
    _write(found, calibrated, summary, out)
    written = [f"{out}/headline.json, {out}/study.md"]
    if (out / FILE).exists():
        written.append(f"what the learners left out and why: {out}/{FILE}")
    echo_result([*written, *found.verdict], summary, as_json=as_json)


def _checked(project_folder: Path | None, log: Path) -> "tuple[Project, FeatureSpec]":
    """The project, which is LOG or what --project names, as sound as 'graft check' wants it, and its spec."""
    from features.store import compile_spec
    from graft.check import check_project
    from lab.study.studied import NO_REDIS

    process = begin(log if (log / FILE_NAME).exists() else project_folder)
    check_project(process.settings.project, NO_REDIS, process.teacher_access)
    project = process.project
    if log.resolve() == project.folder and not (events := project.folder / EVENTS).exists():
        raise ConfigurationError([f"{events}: no such file; it has the events that are joined, or name an example log"])
    return project, compile_spec(project.repo, NO_REDIS, project.features)


def _made_log(project: "Project", spec: "FeatureSpec", out: Path, count: int | None) -> Path:
    """The example log of the project's own events, of the first `count` if not None; made once."""
    from lab.study.log_in_memory import log_key, records_of
    from lab.study.studied import sources_of
    from lab.study.study_log import write_log

    sources, events = sources_of(project), project.folder / EVENTS
    folder = out / "log" / f"{log_key(project, spec, sources, events)}{'' if count is None else f'-{count}'}"
    if not folder.exists():
        with progress("joining events") as advance:
            write_log(folder, islice(records_of(project, spec, sources, events, advance), count))
    return folder


def _write(found: "Studied", calibrated: "Sequence[Calibration]", summary: dict[str, Any], out: Path) -> None:
    """headline.json, study.md and the pictures."""
    from lab.study.plots import plot_all
    from lab.study.tables import origin, tables

    with replacing(out / "headline.json") as file:
        file.write(json.dumps(summary, indent=1).encode() + b"\n")
    with replacing(out / "study.md") as file:
        made_by = origin(found.findings, f"graft {shlex.join(sys.argv[1:])}")
        words = "\n".join(f"- {sentence}" for sentence in found.verdict)
        file.write(f"{made_by}\n\n### Verdict\n\n{words}\n\n{tables(found.findings, calibrated)}".encode())
    plot_all(found.findings, out)
