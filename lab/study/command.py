"""`graft study`: runs a grid of learners over an example log, and writes the results."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin
from graft.progress import progress
from graft.project import FILE_NAME
from lab.pairs.project_folder import EVENTS, TRUTH
from runtime.folder import replacing

if TYPE_CHECKING:
    from features.spec import FeatureSpec
    from graft.project import Project
    from lab.study.day_zero import DayZero
    from lab.study.findings import Findings
    from lab.study.memory_store import Sources

_NO_REDIS = "redis://127.0.0.1:6379/0"  # part of Feast's configuration; nothing connects to it


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
    out: Path,
    jobs: int,
    as_json: bool,
) -> None:
    """Learn LOG with every variant and seed of a grid, with the stream's own learner.

    LOG is an example log ('graft stream archive'), or a project folder, whose events are then joined in memory. Writes
    headline.json, study.md, plots, and one small file per finished learner to OUT. Another start skips what is finished
    and depends on the same log, teacher and settings. It does not notice that graft's own code has changed: after a
    change of what a learner learns, name another OUT.

    Example: graft study my-pair --grid headline --out study
    """
    from lab.study.findings import Findings, headline
    from lab.study.grid import load_grid
    from lab.study.keys import Keys
    from lab.study.plan import cells_of
    from lab.study.plots import plot_all
    from lab.study.run import Workplace, run_cells
    from lab.study.study_log import read_log
    from lab.study.tables import origin, tables

    grid = load_grid(grid_name).limited(seeds, events)
    project, spec, day_zero = _opened(project_folder, log)
    cells = cells_of(grid, project, spec)
    folder = log if log.resolve() != project.folder else _made_log(project, spec, day_zero.sources, out)
    place = Workplace(folder, spec, day_zero, Keys(read_log(folder, spec), day_zero), out)
    with progress("study") as advance:
        results = run_cells(cells, place, jobs, advance)
    findings = Findings(grid, project.tasks, results, _best_auc(project))
    summary = headline(findings, project.name)
    with replacing(out / "headline.json") as file:
        file.write(json.dumps(summary, indent=1).encode() + b"\n")
    with replacing(out / "study.md") as file:
        made_by = origin(findings, f"graft {shlex.join(sys.argv[1:])}")
        file.write(f"{made_by}\n\n{tables(findings)}".encode())
    plot_all(findings, out)
    echo_result([f"{out}/headline.json, {out}/study.md", *_lines(findings)], summary, as_json=as_json)


def _opened(project_folder: Path | None, log: Path) -> "tuple[Project, FeatureSpec, DayZero]":
    """The project, which is LOG or what --project names, its spec, and what it knows before the first event."""
    from features.entities import known_ids
    from features.store import compile_spec, view_sources
    from lab.study.day_zero import DayZero
    from lab.study.memory_store import Sources

    project = begin(log if (log / FILE_NAME).exists() else project_folder).project
    spec = compile_spec(project.repo, _NO_REDIS, project.features)
    views = view_sources(project.repo, _NO_REDIS)
    sources = Sources({view: (t.path, t.join_key, t.timestamp_field) for view, t in views.tables.items()}, views.pushed)
    return project, spec, DayZero(sources, *known_ids(project.repo, _NO_REDIS, spec))


def _made_log(project: "Project", spec: "FeatureSpec", sources: "Sources", out: Path) -> Path:
    """The example log of the project's own events; made once."""
    from lab.study.log_in_memory import log_key, records_of
    from lab.study.study_log import write_log

    events = project.folder / EVENTS
    folder = out / "log" / log_key(project, spec, sources, events)
    if not folder.exists():
        with progress("joining events") as advance:
            write_log(folder, records_of(project, spec, sources, events, advance))
    return folder


def _best_auc(project: "Project") -> dict[str, float]:
    """The AUC of the true probabilities by task, which a simulated pair knows; empty for another one."""
    try:
        best: dict[str, float] = json.loads((project.folder / TRUTH).read_text("utf-8"))["best_auc"]
    except FileNotFoundError:
        return {}
    return best


def _lines(findings: "Findings") -> list[str]:
    from lab.study.tables import gain_text
    from student.evaluate.arms import STUDENT

    base: Any = findings.grid.baseline
    return [
        f"{task}: student {student.mean:.4f}, student - control {gain_text(findings.gain(base, 'all', task))}"
        for task in findings.binary
        if (student := findings.mean(base, "all", task, STUDENT))
    ]
