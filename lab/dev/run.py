"""Runs a project from its preparation to its end; `running_project` has the order."""

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from features.spec import FeatureSpec, load_spec
from graft.project import FILE_NAME, Project, load_project
from graft.settings import load_settings
from lab.dev.home import Home, claimed_home
from lab.dev.processes import FEATURES, Runner, choose_ports, environment_of, first_version
from lab.dev.session import STALLED_SECONDS, Asking, Sample, Session, Setting, running_session, sample_of, write_first
from lab.dev.watch import Events, Screen, View
from lab.embedded.servers import free_port, is_free_port
from lab.embedded.services import Services, refuse_silent, running_services
from runtime.errors import ConfigurationError, GraftError
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, STREAM_GROUP, end_offsets, lag_of
from stream.kafka.topics import TopicLimits, all_topics, ensure_topics
from stream.replay.dry_run import check_form, check_times
from stream.replay.event_file import count_events
from stream.replay.replay import events_sent
from student.versions.registry import Registry

LIMITS = TopicLimits(retention_bytes=6 * 2**20, segment_bytes=2**20)
"""Little: the embedded broker rewrites all that it keeps once a second, and 20 MB cost a quarter of a core."""

_KEPT_BYTES = LIMITS.retention_bytes - LIMITS.segment_bytes
_MOST_RECORDS = 4_000
_FEWEST_RECORDS = 50
_FIXED_BYTES = 250  # an example's ids of record, times and labels
_VALUE_BYTES = 20  # a feature, or one number of a list
_SPARE = 2.0  # what is on its way through the join, and rows above the mean


def max_lag(spec: FeatureSpec, impression_bytes: float) -> int:
    """How many records a reader may be behind. `impression_bytes`: of an impression of the project, on average.

    The embedded broker removes whole segments, so it keeps at least its bound less one segment; that must hold all
    records that a reader has still to read. The replay waits while a group is too many records behind.
    """
    values = sum(len(f.default) if isinstance(f.default, list) else 1 for f in spec.features)
    example_bytes = _FIXED_BYTES + impression_bytes + _VALUE_BYTES * values
    return max(_FEWEST_RECORDS, min(_MOST_RECORDS, round(_KEPT_BYTES / example_bytes / _SPARE)))


_QUIET_SECONDS = 6.0  # the stream sets its gauges every 5 s
_MOST_WAITED_SECONDS = 60.0
_NOT_NOTED_SECONDS = 75.0  # below STALLED_SECONDS, which end the session


class Learnt:
    """Tells at each call whether the events are sent, read, joined and learnt, and nothing moves any more.

    Once no event comes, an impression waits for its feedback by the wall clock: for a minute at most, where its window
    may be days.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._project = session, session.setting.project
        self._kafka = session.setting.services.kafka
        project = self._project
        longest = max(task.window_seconds for task in project.tasks)
        self._patience = _QUIET_SECONDS + min(_MOST_WAITED_SECONDS, longest + project.stream.idle_seconds)
        self._before = (-1, -1)
        self._moved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether it is so now; asked again and again."""
        watch, now = self._session.watch, time.monotonic()
        if (reached := (watch.read, watch.learned)) != self._before:
            self._before, self._moved_at = reached, now
        quiet = now - self._moved_at
        if not self._session.is_sent() or quiet < _QUIET_SECONDS or (watch.pending != 0 and quiet < self._patience):
            return False
        stream, learner = (lag_of(self._kafka, self._project.topics, group) for group in (STREAM_GROUP, LEARNER_GROUP))
        # Of each partition the last offset is the marker of a transaction, which no reader takes. And a learner that
        # set aside all of the last examples does not commit its position.
        noted = learner.records <= self._project.stream.partitions or quiet > _NOT_NOTED_SECONDS
        return stream.records == 0 and noted


_SHOWN_ITEMS = 3
_ADVICE = "mend what it says, then start it again"
_NO_IDS = "needs users and items that are known"


class Options(NamedTuple):
    """What a user chose. `speed` None: as fast as it is learnt. `ends`: once all is learnt. `port`: of the scorer.

    `asking`: how scores are asked for meanwhile.
    """

    folder: Path
    event_file: Path | None = None
    speed: float | None = None
    keeps: bool = False
    ends: bool = False
    port: int | None = None
    asking: Asking = Asking(per_second=5.0, items_each=20, keep=1_000)


class _Start(NamedTuple):
    """What is known before anything is started."""

    options: Options
    project: Project
    event_file: Path
    port: int


def run_dev(options: Options, environment: dict[str, str], console: Console, say: Callable[[str], None]) -> View:
    """Run the project and show what happens; the last view, if it ends once all is learnt.

    The arguments and errors are those of `running_project`.
    """
    with running_project(options, environment, console, say) as session, Screen(console) as screen:
        return _follow(options, session, screen, console)


@contextmanager
def running_project(
    options: Options, environment: dict[str, str], console: Console, say: Callable[[str], None]
) -> Iterator[Session]:
    """Prepare the project and start all processes; within the block its events are being sent.

    `environment` has the user's settings; `say` gets what is to stand on standard output. GraftError when a part cannot
    be kept alive. Whatever ends the block ends all that was started.
    """
    project = _project(options.folder)
    start = _Start(options, project, _events(project, options.event_file), _port(options.port, environment))
    with (
        claimed_home(project, keeps=options.keeps) as home,
        running_services(environment, home.servers) as services,
    ):
        refuse_silent(services)
        ensure_topics(services.kafka, project.stream, project.topics, LIMITS if services.embedded_kafka else None)
        home.take_up(services, _used_topics(services, project), project)
        settings = environment_of(services, project.folder, home.versions)
        sample = _prepare(start, home, settings, console)
        setting = _setting(start, home, services, settings, sample)
        console.print(f"logs: {home.logs}", highlight=False, markup=False, soft_wrap=True)
        with (
            _advice(options, home),
            running_session(setting, console, lambda: say(curl_line(sample, start.port))) as session,
        ):
            yield session


@contextmanager
def _advice(options: Options, home: Home) -> Iterator[None]:
    """A GraftError of the block also says what helps."""
    try:
        yield
    except GraftError as error:
        kept = f"; or remove {home.folder} to begin anew" if options.keeps else ""
        raise GraftError(f"{error}\n{_ADVICE}{kept}") from error


def _used_topics(services: Services, project: Project) -> list[str]:
    """The project's topics that have had records."""
    admin = connection.admin(services.kafka)
    try:
        with connection.reaching(services.kafka):
            ends = end_offsets(admin, all_topics(project.topics))
    finally:
        admin.close()
    return sorted({at.topic for at, end in ends.items() if end > 0})


def curl_line(sample: Sample, port: int) -> str:
    """A request for scores of a real user and real items, as a shell takes it."""
    user, context = next(iter(sample.contexts.items()))
    body = {"user_id": user, "item_ids": list(islice(sample.items, _SHOWN_ITEMS)), "context": dict(context)}
    text = json.dumps(body, ensure_ascii=False)
    if not text.isprintable():  # a terminal would obey control characters
        text = json.dumps(body)
    return f"curl -s http://127.0.0.1:{port}/score -d {shlex.quote(text)}"


def _project(folder: Path) -> Project:
    if not (folder / FILE_NAME).exists():
        advice = f"'graft init {shlex.quote(str(folder))} --events F' writes one"
        raise ConfigurationError([f"{folder}: is no project, it has no {FILE_NAME}; {advice}"])
    return load_project(folder)


def _events(project: Project, given: Path | None) -> Path:
    """The event file; InvalidInputError when there is none, or its first events cannot be sent."""
    path = (given or project.event_file).resolve()
    check_form(path)
    check_times(path, time.time_ns() // 1_000_000)
    return path


def _port(given: int | None, environment: dict[str, str]) -> int:
    """The scorer's port: what was asked for, else the default if it is free. ConfigurationError for one in use."""
    asked = given or (load_settings(environment).http_port if environment.get("GRAFT_HTTP_PORT") else None)
    if asked is not None and not is_free_port(asked):
        raise ConfigurationError([f"port {asked}: is in use by another process; name another one with --port"])
    usual = load_settings({}).http_port
    return asked or (usual if is_free_port(usual) else free_port())


def _prepare(start: _Start, home: Home, settings: dict[str, str], console: Console) -> Sample:
    """Fill the features, and learn a first version from the teacher where there is none yet."""
    project = start.project
    runner = Runner(console, project.folder, settings, home.logs / "preparation.log")
    for command in FEATURES:
        runner.run(command)
    sample = sample_of(start.event_file, load_spec(project.repo), project.tasks, project.stream.max_unusable_share)
    if project.teacher is not None and Registry(home.versions).latest() is None:
        try:
            _first_version(start, home, runner)
        except GraftError as error:
            _tell(runner, error)
    return sample


def _first_version(start: _Start, home: Home, runner: Runner) -> None:
    """Learn from the teacher alone, on the users and items of Feast's tables, else on those of the first events."""
    try:
        for command in first_version(start.project):
            runner.run(command)
    except GraftError as error:
        if _NO_IDS not in str(error):
            raise
        first = home.folder / "first_events.jsonl"
        write_first(start.event_file, first)
        *_, bootstrap = first_version(start.project, first)
        runner.run(bootstrap)


def _tell(runner: Runner, error: GraftError) -> None:
    """Without a version from the teacher the learner publishes one that knows nothing: that is no reason to end."""
    reason = str(error).splitlines()[-1].strip()
    note = f"note: no first version from the teacher alone, the student begins untrained: {reason}"
    runner.console.print(note, highlight=False, markup=False, soft_wrap=True)


def _setting(start: _Start, home: Home, services: Services, settings: dict[str, str], sample: Sample) -> Setting:
    project, event_file, speed = start.project, start.event_file, start.options.speed
    return Setting(
        title=f"graft dev {project.name}",
        project=project,
        event_file=event_file,
        events=Events(count_events(event_file), sent_before(home, services, project, event_file)),
        pace=() if speed is None else ("--speed", f"{speed:g}"),
        max_lag=max_lag(load_spec(project.repo), sample.impression_bytes),
        sample=sample,
        asking=start.options.asking,
        environment=settings,
        ports=choose_ports(start.port),
        versions=home.versions,
        logs=home.logs,
        started_at=time.monotonic(),
        services=services,
    )


def sent_before(home: Home, services: Services, project: Project, event_file: Path) -> int:
    """How many of the file's events earlier starts have sent; ConfigurationError when they were another file's."""
    try:
        return events_sent(services.kafka, project.topics, event_file)
    except ConfigurationError as error:
        if not services.embedded_kafka:
            raise
        # 'graft reset' does not reach a broker that runs with 'graft dev' alone
        raise ConfigurationError([f"{home.folder} is of other events, remove it to begin anew: {error}"]) from None


def _follow(options: Options, session: Session, screen: Screen, console: Console) -> View:
    """Show what happens until it ends."""
    paced = options.speed is not None  # the replay makes pauses as the events had them
    if not session.follow(screen, Learnt(session), may_rest=lambda: paced and not session.is_sent()):
        what = "nothing has been read or learnt"
        raise GraftError(f"{what} for {STALLED_SECONDS:.0f} s, but not all of what was sent is learnt; see the logs")
    view, watch = session.watch.look(), session.watch
    screen.finish(view)
    ended = end_line(view, watch.pending or 0, watch.left_out, watch.dead_letters_by_code)
    console.print(ended, highlight=False, markup=False, soft_wrap=True)
    if not options.ends:
        session.follow(screen, lambda: False, may_rest=lambda: True)
    return view


def end_line(view: View, pending: int, left_out: int, dead_letters: Mapping[str, int]) -> str:
    """What was learnt, left out, or became a dead letter, by code, and how many impressions are still open."""
    told = f"all {view.events:,} events are read, {view.learned:,} examples learnt"
    if left_out:
        told += f"; {left_out:,} impressions were left out, as [sampling] says: see docs/sampling.md"
    if dead_letters:
        codes = ", ".join(f"{count:,} {code}" for code, count in dead_letters.items())
        told += f"; {view.dead_letters:,} events became dead letters: {codes}; docs/dead-letters.md says why each does"
    if pending:
        told += f"; {pending:,} impressions still wait for feedback, as long as their window is open"
    return told


def own_environment(kafka: str | None, redis_url: str | None) -> dict[str, str]:
    """The environment of this process with the servers that were named on the command line."""
    given = {"GRAFT_KAFKA": kafka, "GRAFT_REDIS_URL": redis_url}
    named = {name: value for name, value in given.items() if value}
    return {**os.environ, **named, **{f"{name}_FILE": "" for name in named}}
