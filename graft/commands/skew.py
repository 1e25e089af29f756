"""``graft student skew``: what serving saw against what the learner sees."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin

if TYPE_CHECKING:
    from student.evaluate.skew import SkewReport

_SHOWN = 10


@click.command
@json_option
@click.pass_obj
def skew(project_folder: Path | None, *, as_json: bool) -> None:
    """Print how far served features differ from those of the examples, their ages, and what has moved.

    It reads what the learner process has found since its start. Rows are compared where a request names the
    impressions of its items and the scorer samples them (GRAFT_HTTP_SAMPLE).

    Example: graft student skew
    """
    settings = begin(project_folder).settings
    from student.evaluate.skew import load_report
    from student.versions.registry import Registry

    report = load_report(Registry(settings.versions).metrics_folder)
    echo_result(list(_lines(report)), report.model_dump(), as_json=as_json)


def _lines(report: "SkewReport") -> Iterator[str]:
    if (share := report.differing_share) is not None:
        yield f"{report.rows:,} served rows compared, {report.differing_rows:,} differ from their example ({share:.1%})"
    else:
        yield "no served row compared yet; requests must name 'impression_ids', and GRAFT_HTTP_SAMPLE be above 0"
    for feature, rows in list(report.differing.items())[:_SHOWN]:
        yield f"  {feature} differs in {rows:,}"
    for view, age in report.ages.items():
        mean, most = f"{age.mean_seconds:,.1f}", f"{age.most_seconds:,.1f}"
        yield f"  {view}: {mean} s old on average when it was served, {most} s at most"
    if report.drift:
        yield "population stability index between the last two windows of examples (above 0.25 is a large change):"
    for column, psi in list(report.drift.items())[:_SHOWN]:
        yield f"  {column} {psi:.3f}"
