"""``graft teacher run``, ``backfill`` and ``profile``."""

import time
from contextlib import closing, contextmanager
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
    from teacher_cache.cache import LogitCache
    from teacher_cache.profile_scorer import ProfileScorer
    from teacher_cache.request_scorer import RequestScorer
    from teacher_cache.teacher import Teacher
    from teacher_cache.unshown import UnshownCache, UnshownScorer


@click.group
def teacher() -> None:
    """Score the target's rows with the teacher into the cache."""


@teacher.command
@click.pass_obj
def run(project_folder: Path | None) -> None:
    """Score the stream's teacher requests in batches until stopped (SIGTERM or Ctrl-C).

    Example: GRAFT_METRICS_PORT=9101 graft teacher run
    """
    from features.spec_file import load_spec
    from stream.connection import wait_for_kafka
    from stream.requests import TeacherRequestReader
    from stream.topics import ensure_topics
    from teacher_cache.batch_scorer import run_batch_scorer
    from teacher_cache.domain_map import DomainMap
    from teacher_cache.request_scorer import RequestScorer
    from teacher_cache.teacher import load_teacher

    process = begin(project_folder)
    stop = process.run_until_stopped()
    project, settings = process.project, process.settings
    spec = load_spec(project.repo)
    model = load_teacher(project.teacher, project.folder)
    scorer = RequestScorer(model, DomainMap(project.teacher, project.folder, model, spec), spec)
    unshown = _open_unshown(process, spec, scorer)

    def open_reader() -> TeacherRequestReader:
        ensure_topics(settings.kafka, project.stream, project.topics)
        return TeacherRequestReader(settings.kafka, project.topics, process.instance)

    with closing(wait_for_kafka(open_reader, stop)) as reader, _open_profiles(process, spec, model) as profiles:
        run_batch_scorer(reader, scorer, open_cache(process), project.teacher, stop, unshown, profiles)


@teacher.command
@json_option
@click.pass_obj
def profile(project_folder: Path | None, *, as_json: bool) -> None:
    """Compute the profiles that are due now: of the ids of the batch tables, and of those that were asked for.

    'graft teacher run' does so all the time; this is for the time before the first event. Needs 'graft features
    materialize'. It may be repeated.

    Example: graft teacher profile && graft student bootstrap
    """
    from features.spec_file import load_spec
    from graft.progress import progress
    from teacher_cache.teacher import load_teacher

    process = begin(project_folder)
    project = process.project
    spec, started = load_spec(project.repo), time.monotonic()
    with _open_profiles(process, spec, load_teacher(project.teacher, project.folder)) as profiles:
        done = 0
        with progress("profiles") as advance:
            while profiles is not None and (due := profiles.refresh()):
                done += due
                advance(done, None)
    seconds = time.monotonic() - started
    line = f"profiles of {done:,} ids in {seconds:.1f} s"
    if not project.features.profiles:
        line = "graft.toml has no [[features.profiles]] table: nothing to compute"
    echo_result([line], {"ids": done, "seconds": seconds}, as_json=as_json)


@teacher.command
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
    from features.spec_file import load_spec
    from graft.progress import progress
    from teacher_cache.backfill import backfill as fill
    from teacher_cache.domain_map import DomainMap
    from teacher_cache.request_scorer import RequestScorer
    from teacher_cache.teacher import load_teacher

    process = begin(project_folder)
    project = process.project
    spec = load_spec(project.repo)
    model = load_teacher(project.teacher, project.folder)
    scorer = RequestScorer(model, DomainMap(project.teacher, project.folder, model, spec), spec)
    requests = _requests_of_file(process, spec, events) if events else _requests_since(process, since or 0)
    cache, unshown = open_cache(process), _open_unshown(process, spec, scorer, project.teacher.ttl_seconds)
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


def open_cache(process: Process) -> "LogitCache":
    """The cache of the project's teacher: batch scorer, backfill and learner share it."""
    from teacher_cache.cache import LogitCache

    config = process.project.teacher
    return LogitCache(process.redis_url, config.version, [task.name for task in config.tasks], config.ttl_seconds)


def open_unshown_cache(process: Process, spec: "FeatureSpec", ttl_seconds: int | None = None) -> "UnshownCache | None":
    """The unshown rows of the project's teacher: batch scorer, backfill and learner share them; None: there are none.

    `ttl_seconds`: how long rows wait that are put into it; None: as long as those of the stream.
    """
    from teacher_cache.unshown import STREAM_TTL_SECONDS, UnshownCache

    project = process.project
    if project.unshown.ratio == 0:
        return None
    return UnshownCache(process.redis_url, project.teacher, spec, ttl_seconds or STREAM_TTL_SECONDS)


@contextmanager
def _open_profiles(process: Process, spec: "FeatureSpec", model: "Teacher") -> "Iterator[ProfileScorer | None]":
    """The profiles of the project's teacher; None, and without Feast's import, where there are none."""
    project, redis_url = process.project, process.redis_url
    configs = project.features.profiles
    if not configs:
        yield None
        return
    from features.entities import batch_tables
    from features.profile_push import LoggedPusher
    from features.reader import OnlineReader
    from features.store import view_sources
    from teacher_cache.domain_map import DomainMap
    from teacher_cache.profile_queue import ProfileQueue
    from teacher_cache.profile_scorer import ProfileScorer, ProfileTable
    from teacher_cache.profiles import Profiler

    version, pushed = project.teacher.version, view_sources(project.repo, redis_url).pushed
    tables = [ProfileTable(config, ProfileQueue(redis_url, version, spec, config)) for config in configs]
    domain_map = DomainMap(project.teacher, project.folder, model, spec)
    profiler = Profiler(model, domain_map, spec, OnlineReader(spec, redis_url), pushed.values())
    with closing(LoggedPusher(project.repo, redis_url, configs)) as pusher:
        yield ProfileScorer(tables, profiler, pusher, batch_tables(project.repo, redis_url, spec))


def _open_unshown(
    process: Process, spec: "FeatureSpec", scorer: "RequestScorer", ttl_seconds: int | None = None
) -> "UnshownScorer | None":
    from teacher_cache.unshown import UnshownSampler, UnshownScorer

    cache = open_unshown_cache(process, spec, ttl_seconds)
    return None if cache is None else UnshownScorer(UnshownSampler(spec, process.project.unshown), scorer, cache)


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
