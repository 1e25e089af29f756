"""``graft replay``, ``graft stream run`` and ``archive``."""

import gc
import logging
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option
from graft.process import Process, begin
from runtime.errors import GraftError
from runtime.telemetry import say

if TYPE_CHECKING:
    from features.spec import FeatureSpec
    from runtime.telemetry import StopSignal
    from stream.log.archive import LookUp
    from stream.replay.replay import Sent

_RANGE = ("first_ms", "last_ms")


@click.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second (default: all at once).")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="N times as fast as the event times say; 1: with the pauses that the events had.",
)
@click.option("--max-lag", type=click.IntRange(min=1), help="Wait while a reader of the stream is further behind.")
@click.option("--resume", is_flag=True, help="Go on where the last replay of FILE with --resume ended.")
@click.option("--dry-run", is_flag=True, help="Check every event as the stream would; send nothing.")
@json_option
@click.pass_obj
def replay(  # noqa: PLR0913 - one argument an option
    project_folder: Path | None,
    file: Path,
    *,
    rate: float | None,
    speed: float | None,
    max_lag: int | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send the events of FILE (JSONL or Parquet) to Kafka, as they are.

    A line is an impression or feedback with its "type". The stream makes any other line a dead letter. At the end the
    command waits until the stream has read them, a minute at most, and says how many became dead letters. A file whose
    times cannot be milliseconds since 1970 is refused.

    With --resume Kafka keeps how far the replay is, so that a replay that was killed goes on: what it was sending comes
    a second time, and the stream drops it.

    With --dry-run nothing is sent: the events are read as the stream would read them, and the command tells the range
    of their times. It fails where some would become dead letters, with the first one's line and reason.

    Example: graft replay events.jsonl --rate 500
    """
    from graft.progress import progress
    from stream.kafka.topics import ensure_topics
    from stream.replay.dry_run import check_form, check_times
    from stream.replay.replay import EventTime, Rate, at_once
    from stream.replay.replay import replay as send

    if rate and speed:
        raise click.UsageError("--rate and --speed exclude each other")
    process = begin(project_folder)
    topics = process.project.topics
    check_form(file)
    check_times(file, time.time_ns() // 1_000_000)
    if not dry_run:
        ensure_topics(process.settings.kafka, process.project.stream, topics)
    pace = EventTime(speed) if speed else Rate(rate) if rate else at_once
    with progress("replay") as advance:
        sent = send(
            file,
            process.settings.kafka,
            topics,
            max_lag=max_lag,
            progress=advance,
            pace=pace,
            dry_run=dry_run,
            resume=resume,
        )
    count = sent.events
    verb = "would send" if dry_run else "sent"
    line = f"{verb} {count.impressions:,} impressions and {count.feedback:,} feedback events"
    if count.unreadable:
        line += f", and {count.unreadable:,} rows that are neither: dead letters"
    if sent.resumed_at:
        line += f"; {sent.resumed_at:,} events were sent before"
    after = _expected(process, file) if dry_run else _awaited(process, sent)
    echo_result([line, *(_expected_lines(after) if dry_run else [])], count._asdict() | after, as_json=as_json)
    if dry_run and (dead := after["dead_letters"]):
        reasons = ", ".join(f"{number:,} {code}" for code, number in dead.items())
        raise GraftError(
            f"{sum(dead.values()):,} events would become dead letters: {reasons}; the first is line "
            f"{after['first_fault']['line']}: {after['first_fault']['reason']}"
        )


def _awaited(process: Process, sent: "Sent") -> dict[str, Any]:
    """What became of the messages; warns of dead letters, and where that is not known."""
    from stream.replay.replay_outcome import await_outcome

    outcome = await_outcome(process.settings.kafka, process.project.topics, sent)
    if dead := sum(outcome.dead_letters.values()):
        reasons = ", ".join(f"{count:,} {code}" for code, count in outcome.dead_letters.items())
        _warn(
            f"{dead:,} of {sum(sent.events):,} messages became dead letters: {reasons}; 'graft dlq ls' shows why, "
            "docs/dead-letters.md what each reason means"
        )
    if not outcome.has_reader:
        _warn(
            "no stream process reads these topics now, so it is not known how many of the messages become dead "
            "letters: start 'graft stream run', then look at 'graft dlq ls'"
        )
    elif outcome.unread:
        _warn(f"the stream has still to read {outcome.unread:,} messages; look at 'graft dlq ls' when it has")
    return {"dead_letters": outcome.dead_letters, "unread": outcome.unread}


def _expected(process: Process, file: Path) -> dict[str, Any]:
    """What the stream would make of the events: their times, and what would become dead letters."""
    from stream.join.validation import Validator
    from stream.replay.dry_run import expect

    project = process.project
    validator = Validator(_spec(process), project.tasks)
    expected = expect(file, validator, project.tasks, project.stream, time.time_ns() // 1_000_000)
    first = expected.first_fault
    return expected._asdict() | {"first_fault": first._asdict() if first else None}


def _spec(process: Process) -> "FeatureSpec":
    """The feature spec of `graft features apply`, else the one that it would write."""
    from features.spec import load_spec

    try:
        return load_spec(process.project.repo)
    except GraftError:
        from features.repo.store import compile_spec  # Feast, which takes seconds

        return compile_spec(process.project.repo, process.redis_url, process.project.features)


def _expected_lines(expected: dict[str, Any]) -> list[str]:
    if expected["first_ms"] is None:
        return []
    first, last = (datetime.fromtimestamp(expected[key] / 1000, UTC).isoformat(" ", "seconds") for key in _RANGE)
    lines = [f"times from {first} to {last}"]
    if expected["backward"]:
        lines.append(f"{expected['backward']:,} events stand after a later one: what is too late becomes a dead letter")
    if expected["duplicates"]:
        lines.append(f"{expected['duplicates']:,} impressions have the id of an earlier one and would be dropped")
    return lines


def _warn(text: str) -> None:
    say(text, logging.WARNING, "warning: ")


@click.command
@click.pass_obj
def run(project_folder: Path | None) -> None:
    """Join impressions with their feedback until stopped (SIGTERM or Ctrl-C).

    Several share the partitions of [stream] partitions, and there is work for as many. Each has its host's name;
    several on one host need a GRAFT_INSTANCE each. A killed one goes on where it was; its partitions move after 6 s.

    Example: GRAFT_METRICS_PORT=9100 graft stream run
    """
    process = begin(project_folder)
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from features.spec import load_spec
    from stream.process.run import run_stream

    spec = load_spec(project.repo)
    # Last: Feast takes seconds, and from then on every library's deprecation warnings are shown.
    from features.aggregates import Aggregates
    from features.online.reader import OnlineReader
    from features.push.pushed_rows import OwnedPusher, PushedRows
    from features.push.pusher import FeastPusher
    from features.repo.push_log import PushLog

    pusher = FeastPusher(project.repo, process.redis_url, project.features.aggregates)
    rows = PushedRows(process.redis_url, spec, pusher.views, project.features.aggregates)
    gc.collect()
    gc.freeze()  # Feast's 290,000 objects live until the end: without them a full collection takes no 150 ms pause

    with closing(PushLog(pusher.tables, project.features.aggregates)) as log:
        owned = OwnedPusher(pusher, rows, log)
        run_stream(
            settings.kafka,
            project.stream,
            project.topics,
            project.tasks,
            spec,
            OnlineReader(spec, process.redis_url, pusher.views.values()),
            lambda: Aggregates(project.features.aggregates),
            owned,
            process.instance,
            stop,
            claim_aggregates=lambda state: owned.claim(state.name, is_new=state.is_new),
            sampling=project.sampling,
        )


@click.command
@click.argument("log", type=click.Path(file_okay=False, path_type=Path))
@click.option("--every-seconds", type=click.FloatRange(min=1), default=30.0, show_default=True, help="Between files.")
@click.pass_obj
def archive(project_folder: Path | None, log: Path, every_seconds: float) -> None:
    """Write the examples to LOG as Parquet files by day, until stopped (SIGTERM or Ctrl-C).

    Goes on exactly where LOG ends. One process per LOG. Beside each example it writes the teacher's logits that Redis
    has of it then; 'graft student train --from LOG' and 'graft study LOG' learn these again.

    Example: GRAFT_METRICS_PORT=9104 graft stream archive example-log
    """
    process = begin(project_folder)
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from stream.kafka.connection import wait_for_kafka
    from stream.kafka.topics import ensure_topics
    from stream.log.archive import run_archive

    wait_for_kafka(lambda: ensure_topics(settings.kafka, project.stream, project.topics), stop)
    look_up = _look_up(process, stop) if project.teacher else None
    run_archive(log, settings.kafka, project.topics, stop, look_up=look_up, every_seconds=every_seconds)


def _look_up(process: Process, stop: "StopSignal") -> "LookUp":
    """What gives the archive the teacher's logits."""
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from runtime.redis import refuse_wrong_login
    from teacher_cache.cache.archive_look_up import ArchiveLookUp

    refuse_wrong_login(process.redis_url)
    teacher = ProjectTeacher(process)
    generation = teacher.awaited_generation(stop)
    return ArchiveLookUp(teacher.open_cache(), generation)
