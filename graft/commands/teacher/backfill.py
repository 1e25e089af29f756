"""``graft teacher backfill``: fills the teacher cache for a history."""

import hashlib
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option, moment_ms
from graft.process import Process, begin
from runtime.folder import file_sha256
from runtime.telemetry import say

if TYPE_CHECKING:
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from graft.progress import Advance
    from teacher_cache.backfill.backfill import Manner
    from teacher_cache.backfill.backfill_report import BackfillReport
    from teacher_cache.backfill.histories import Checkpoint, History, Tracked

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command
@click.option("--since", metavar="WHEN", help="What was written since then: 30d, 12h, ... ago, or an ISO 8601 time.")
@click.option("--until", metavar="WHEN", help="What was written before then.")
@click.option(
    "--from",
    "log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="LOG",
    help="The examples of an example log; --since and --until are times of impressions.",
)
@click.option(
    "--events", type=_FILE, metavar="FILE", help="The impressions of an event file, with the features of now."
)
@click.option(
    "--rows",
    type=_FILE,
    metavar="FILE",
    help="Rows that nobody was shown, with the features of now: Parquet with user_id, item_id and contexts.",
)
@click.option("--profiles", is_flag=True, help="No history: the profiles that are due, of ids of the batch tables too.")
@click.option("--missing-only", is_flag=True, help="Leave out rows whose logits are there.")
@click.option("--max-rows-per-second", type=click.FloatRange(min=0.1), metavar="N", help="Spare the teacher.")
@click.option("--resume", is_flag=True, help="Go on where this backfill was stopped or killed, if it was.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where: in this process, or on the machines of a Ray cluster (--from and --rows; needs graft[ray]).",
)
@click.option("--dry-run", is_flag=True, help="Say what it would score, how long and how many bytes; write nothing.")
@json_option
@click.pass_obj
def backfill(  # noqa: PLR0913 - one for each option
    project_folder: Path | None,
    since: str | None,
    until: str | None,
    log: Path | None,
    events: Path | None,
    rows: Path | None,
    *,
    profiles: bool,
    missing_only: bool,
    max_rows_per_second: float | None,
    resume: bool,
    engine: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fill the teacher cache for a history. It may be repeated, and may run beside 'graft teacher run'.

    The history is the stream's teacher requests (--since), an example log, an event file, or a file of rows. After each
    batch it notes in Redis how far it is, so that --resume goes on there.

    With --profiles it computes the profiles that are due, as 'graft teacher run' does all the time: for the time before
    the first event, after 'graft features materialize'.

    Example: graft teacher backfill --since 30d --missing-only --resume
    """
    histories = [path for path in (log, events, rows) if path is not None]
    if profiles and not (histories or since or until or dry_run):
        _fill_profiles(begin(project_folder), as_json=as_json)
        return
    if profiles or len(histories) > 1 or (not histories and since is None):
        raise click.UsageError("give one of --since WHEN, --from LOG, --events FILE, --rows FILE and --profiles")
    if rows is not None and (since or until):
        raise click.UsageError("--rows have no time: leave out --since and --until")
    if engine == "ray" and (dry_run or (log is None and rows is None)):
        raise click.UsageError(
            "--engine ray takes --from LOG or --rows FILE, and no --dry-run; leave it out for others"
        )
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from graft.progress import progress
    from teacher_cache.backfill.backfill import Manner

    bounds_ms = _bounds_ms(since, until)
    process = begin(project_folder)
    teacher = ProjectTeacher(process)
    teacher.scoring  # noqa: B018 - loaded: its errors come first
    if not dry_run:
        teacher.begin()
    if rows is not None:
        _tell_of_missing_context(rows, teacher.generation.context)
    manner = Manner(dry_run, missing_only, max_rows_per_second)
    events_digest, rows_digest = (None if path is None else file_sha256(path) for path in (events, rows))
    asked = [since, until, log and str(log.resolve()), events_digest, rows_digest, missing_only]
    with progress("backfill") as advance:
        if engine == "ray":
            from graft.commands.teacher.backfill_on_ray import Source, fill_on_ray

            source = Source(log and log.resolve(), rows and rows.resolve(), rows_digest, *bounds_ms)
            name = _name([*asked, engine])
            report = fill_on_ray(process, teacher, source, manner, name=name, resume=resume, advance=advance)
        else:
            with ExitStack() as opened:
                history = _history(process, teacher, bounds_ms, log, events, rows, opened)
                report = _fill_here(teacher, history, manner, _name(asked), resume=resume, advance=advance)
    echo_result(_lines(report, manner), report._asdict(), as_json=as_json)


def _bounds_ms(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    now_ms = time.time_ns() // 1_000_000
    since_ms, until_ms = moment_ms("--since", since, now_ms), moment_ms("--until", until, now_ms)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise click.UsageError(f"--since {since} is not before --until {until}; an age such as 30d is the time ago")
    return since_ms, until_ms


def _fill_here(
    teacher: "ProjectTeacher",
    history: "History",
    manner: "Manner",
    name: str,
    *,
    resume: bool,
    advance: "Advance",
) -> "BackfillReport":
    from teacher_cache.backfill.backfill import backfill as fill

    scorer = teacher.scoring.scorer
    with closing(teacher.open_checkpoint(name)) as checkpoint, closing(teacher.open_cache("backfill")) as cache:
        requests = _opened(history, checkpoint if resume else None)
        report = fill(
            requests,
            scorer,
            cache,
            progress=lambda _rows, reached: advance(requests.done(reached), requests.total),
            manner=manner,
            put=lambda _, reached: checkpoint.save(requests.bounds, reached),
        )
        if not manner.dry_run:
            checkpoint.remove()
    return report


def _history(
    process: Process,
    teacher: "ProjectTeacher",
    bounds_ms: tuple[int | None, int | None],
    log: Path | None,
    events: Path | None,
    rows: Path | None,
    opened: ExitStack,
) -> "History":
    from teacher_cache.backfill.histories import AskedRows, LoggedExamples, ShownRows

    if log is not None:
        from stream.log.example_log import ExampleLog

        return LoggedExamples(ExampleLog(log), *bounds_ms)
    if events is None and rows is None:
        asked = AskedRows(process.settings.kafka, process.project.topics, bounds_ms[0] or 0, bounds_ms[1])
        return opened.enter_context(closing(asked))
    from features.online.reader import OnlineReader
    from stream.log.row_file import rows_of
    from stream.replay.event_file import impressions_of

    reader = OnlineReader(teacher.spec, process.redis_url)
    if events is not None:
        return ShownRows(lambda: impressions_of(events), reader, teacher.spec, *bounds_ms)
    assert rows is not None
    return ShownRows(lambda: rows_of(rows, process.project.features.context), reader, teacher.spec)


def _opened(history: "History", checkpoint: "Checkpoint | None") -> "Tracked":
    """The history from where `checkpoint` is, if there is one, else from its beginning."""
    from teacher_cache.backfill.histories import Tracked

    saved = checkpoint and checkpoint.load()
    if not saved:
        if checkpoint is not None:
            say("backfill: nothing of it was noted; it begins at the beginning")
        return Tracked(history, history.bounds(), {})
    tracked = Tracked(history, saved.bounds, saved.position)
    say(f"backfill: goes on after {tracked.done(saved.position):,} of {tracked.total:,}")
    return tracked


def _tell_of_missing_context(rows: Path, context: list[str]) -> None:
    """A line where the teacher sees a context that the rows lack: their logits are in the keys of no impression."""
    from stream.log.row_file import columns_of

    names = [name.removeprefix("context:") for name in context]
    if missing := sorted(set(names) - set(columns_of(rows))):
        told = f"{rows} has no column {', '.join(missing)}, which the teacher sees"
        click.echo(f"backfill: {told}: examples that have it in their context do not find these logits", err=True)


def _name(asked: list[Any]) -> str:
    """What tells one backfill from another: the same options, and files of the same content."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _lines(report: "BackfillReport", manner: "Manner") -> list[str]:
    took = f"put the logits of {report.rows:,} rows in {report.seconds:.1f} s"
    if manner.dry_run:
        rate = manner.max_rows_per_second
        slowest = 0.0 if rate is None else report.rows / rate
        about = max(report.seconds, report.teacher_seconds, slowest)  # it reads the same, and scores meanwhile
        took = f"would put the logits of {report.rows:,} rows in about {about:,.1f} s"
    rates = f"{report.hit_rate_before:.1%} before, {report.hit_rate_after:.1%} after"
    mapped = (
        f"{report.defaulted_share:.0%} of the teacher's inputs are defaulted, "
        f"{report.fallback_share:.1%} of the mapped values fell back; {report.left_out:,} rows were left out"
    )
    return [f"{took}, about {report.bytes:,} bytes; hit rate of the {report.read:,} rows read: {rates}", mapped]


def _fill_profiles(process: Process, *, as_json: bool) -> None:
    """Compute the profiles that are due now: of the ids of the batch tables, and of those that were asked for."""
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from graft.progress import progress

    teacher, started = ProjectTeacher(process), time.monotonic()
    if process.project.features.profiles:
        teacher.begin()
    with teacher.open_profiles() as profiles:
        done = 0
        with progress("profiles") as advance:
            while profiles is not None and (due := profiles.refresh()):
                done += due
                advance(done, None)
    seconds = time.monotonic() - started
    line = f"profiles of {done:,} ids in {seconds:.1f} s"
    if not process.project.features.profiles:
        line = "graft.toml has no [[features.profiles]] table: nothing to compute"
    echo_result([line], {"ids": done, "seconds": seconds}, as_json=as_json)
