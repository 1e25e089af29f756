"""``graft look``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.options import columns_given, echo_result, json_option, label_option, map_option
from graft.process import Process, begin
from runtime.folder import writing

if TYPE_CHECKING:
    from graft.init.look import Overlap, Read


@click.command
@click.argument("log")
@map_option
@label_option
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page with plots there.")
@json_option
def look(log: str, mapped: tuple[str, ...], labels: tuple[str, ...], html: Path | None, *, as_json: bool) -> None:
    """Tell what is in LOG before anything runs: events, or a project folder with its events, tables and teacher.

    LOG is CSV, TSV, JSONL or Parquet in any form that 'graft init' reads, or an event file. The command tells rows,
    users, items, times and gaps, base rates, unseen ids, duplicates; and what will hurt, with the key that handles it.

    Example: graft look ratings.csv --label 'liked = rating >= 4'
    """
    from graft.init.look import judged, read
    from graft.init.look_report import lines, page
    from graft.init.roles import Given

    process = begin(None)
    known = read(log, Given(columns_given(mapped), labels))
    judgement = judged(known, _overlaps(known, process))
    summary = {
        **judgement.figures.model_dump(),
        "overlaps": [overlap.model_dump() for overlap in judgement.overlaps],
        "advice": judgement.advice,
    }
    if html:
        with writing(html):
            html.write_text(page(log, judgement), encoding="utf-8")
    echo_result(list(lines(judgement)), summary, as_json=as_json)


def _overlaps(known: "Read", process: Process) -> "list[Overlap]":
    """Those of a project; none of a mere log."""
    if known.project is None:
        return []
    from graft.init.overlap import overlaps  # Feast, which takes seconds

    return overlaps(known.project, process.redis_url, known.log, process.teacher_access)
