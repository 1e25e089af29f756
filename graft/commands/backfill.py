"""``graft teacher backfill``: fills the teacher cache for a history."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.age import age_seconds
from graft.commands.output import echo_result, json_option
from graft.process import Process, begin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.spec import FeatureSpec
    from stream.events import TeacherRequest


@click.command
@click.option(
    "--since", callback=age_seconds, metavar="AGE", help="Score the teacher requests of the last 30d, 12h, ..."
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Score the impressions of an event file, with the features of now.",
)
@click.option("--dry-run", is_flag=True, help="Score, but write nothing.")
@json_option
@click.pass_obj
def backfill(
    project_folder: Path | None, since: int | None, events: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Fill the teacher cache for a history. It may be repeated, and may run beside 'graft teacher run'.

    With [unshown] it makes unshown rows too; they wait as long as the logits, teacher.ttl_seconds.

    Example: graft teacher backfill --since 30d
    """
    if (since is None) == (events is None):
        raise click.UsageError("give one of --since AGE and --events FILE")
    from graft.commands.teacher_parts import ProjectTeacher
    from graft.progress import progress
    from teacher_cache.backfill import backfill as fill

    process = begin(project_folder)
    teacher = ProjectTeacher(process)
    scorer = teacher.scoring.scorer
    teacher.begin()
    requests = _requests_of_file(process, teacher.spec, events) if events else _requests_since(process, since or 0)
    cache, unshown = teacher.open_cache("backfill"), teacher.open_unshown(process.project.teacher.ttl_seconds)
    with progress("backfill") as advance:
        report = fill(requests, scorer, cache, unshown, progress=advance, dry_run=dry_run)
    verb = "would put" if dry_run else "put"
    beside = f" and of {report.unshown_rows:,} unshown ones" if unshown else ""
    line = (
        f"{verb} the logits of {report.rows:,} rows{beside} in {report.seconds:.1f} s; "
        f"{report.defaulted_share:.0%} of the teacher's inputs are defaulted, "
        f"{report.fallback_share:.1%} of the mapped values fell back; {report.left_out:,} rows were left out"
    )
    echo_result([line], report._asdict(), as_json=as_json)


def _requests_since(process: Process, seconds: int) -> "Iterator[TeacherRequest]":
    from stream.requests import requests_since

    since_ms = time.time_ns() // 1_000_000 - seconds * 1_000
    return iter(requests_since(process.settings.kafka, process.project.topics, since_ms))


def _requests_of_file(process: Process, spec: "FeatureSpec", events: Path) -> "Iterator[TeacherRequest]":
    from features.reader import OnlineReader
    from stream.event_file import impressions_of
    from teacher_cache.backfill import requests_of_impressions

    reader = OnlineReader(spec, process.redis_url)
    return requests_of_impressions(impressions_of(events), reader, spec)
