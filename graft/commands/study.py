"""`graft study`: a grid of learners over an example log, and what it says."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin
from graft.progress import progress

if TYPE_CHECKING:
    from features.spec import FeatureSpec
    from graft.project import Project
    from graft.study.findings import Findings


@click.command
@click.argument("log", metavar="LOG", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--grid", "grid_name", default="headline", show_default=True, help="A TOML file, or: headline, full.")
@click.option("--seeds", type=click.IntRange(1), help="Seeds of every variant; overrides the grid's.")
@click.option("--events", type=click.IntRange(100), help="Only the first N examples; overrides the grid's.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("study"), show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes, one core each.")
@json_option
@click.pass_obj
def study(  # noqa: PLR0913 - one for each option
    project: Path | None,
    *,
    log: Path,
    grid_name: str,
    seeds: int | None,
    events: int | None,
    out: Path,
    jobs: int,
    as_json: bool,
) -> None:
    """Learn LOG again and again, as a grid says: every variant with every seed, with the stream's own learner.

    LOG is an example log ('graft stream archive'), or a project folder, whose events are then joined in memory. Writes
    to OUT: headline.json, study.md, plots, and one small file per finished learner, which another start skips.

    Example: graft study my-pair --grid headline --out study
    """
    from graft.study.findings import Findings, headline
    from graft.study.grid import cells_of, load_grid
    from graft.study.plots import plot_all
    from graft.study.run import Workplace, run_cells
    from graft.study.study_log import read_log
    from graft.study.tables import tables

    grid = load_grid(grid_name).limited(seeds, events)
    pair, spec, folder = _opened(project, log, out)
    examples = read_log(folder, spec)
    cells = cells_of(grid, pair, examples.key)
    with progress("study") as advance:
        results = run_cells(cells, examples, Workplace(folder, spec, out), jobs, advance)
    findings = Findings(grid, pair.tasks, results)
    summary = headline(findings, pair.name)
    (out / "headline.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    command = f"graft {shlex.join(sys.argv[1:])}"
    (out / "study.md").write_text(f"`{command}`\n\n{tables(findings)}", "utf-8")
    plot_all(findings, out)
    echo_result([f"{out}/headline.json, {out}/study.md", *_lines(findings)], summary, as_json=as_json)


def _opened(project: Path | None, log: Path, out: Path) -> "tuple[Project, FeatureSpec, Path]":
    """The pair, its spec, and the folder of the example log: LOG itself, or one made of the project LOG."""
    if not (log / "graft.toml").exists():
        from features.spec_file import load_spec

        pair = begin(project).project
        return pair, load_spec(pair.repo), log
    from features.store import compile_spec
    from graft.study.log_in_memory import NO_REDIS, records_of
    from graft.study.study_log import write_log

    pair = begin(log).project
    spec = compile_spec(pair.repo, NO_REDIS, pair.features)
    folder = out / "log" / f"{pair.name}-{spec.spec_id}"
    if not folder.exists():
        with progress("joining events") as advance:
            write_log(folder, records_of(pair, spec, pair.folder / "events.jsonl", advance))
    return pair, spec, folder


def _lines(findings: "Findings") -> list[str]:
    from graft.study.tables import gain_text

    base: Any = findings.grid.baseline
    return [
        f"{task}: student {student.mean:.4f}, student - control {gain_text(findings.gain(base, 'all', task))}"
        for task in findings.binary
        if (student := findings.mean(base, "all", task, "student"))
    ]
