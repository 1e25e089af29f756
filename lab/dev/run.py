"""Runs a project from its preparation to its end; `running_project` has the order.

All files are in the folder `.graft-dev` in the project's.
"""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from rich.console import Console

from features.spec import FeatureSpec, load_spec
from graft.project import FILE_NAME, Project, load_project
from graft.settings import load_settings
from lab.dev.processes import FEATURES, Runner, choose_ports, environment_of, first_version
from lab.dev.session import STALLED_SECONDS, Session, running_session, sample_of, write_first
from lab.dev.watch import Asking, Sample, Screen, Setting, View
from lab.embedded.servers import free_port, is_free_port
from lab.embedded.services import Services, refuse_silent, running_services
from runtime.errors import ConfigurationError, GraftError
from runtime.folder import claim_folder, replacing, writing
from runtime.frozen_model import FrozenModel
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, STREAM_GROUP, end_offsets, lag_of
from stream.kafka.topics import TopicLimits, all_topics, ensure_topics
from stream.replay.dry_run import check_form, check_times
from stream.replay.event_file import count_events
from stream.replay.replay import events_sent
from student.versions.registry import Registry

NAME = ".graft-dev"
_SECOND = "another 'graft dev' works in it; end that one first, or copy the project's folder"


class Begun(FrozenModel):
    """The servers of the first start that kept its files."""

    kafka: str
    redis: str


class Home(NamedTuple):
    """The folder of the files of one start. `keeps`: it goes on with what an earlier start left there."""

    folder: Path
    keeps: bool

    @property
    def versions(self) -> Path:
        """The registry of students."""
        return self.folder / "versions"

    @property
    def logs(self) -> Path:
        """The logs of the processes."""
        return self.folder / "logs"

    def take_up(self, services: Services, used_topics: list[str], project: Project) -> None:
        """Note the servers at the first start.

        ConfigurationError when an earlier start had other servers, or its topics have records that it did not send.
        """
        path = self.folder / "begun.json"
        kafka = services.embedded_broker if services.embedded_kafka else services.kafka
        now = Begun(kafka=kafka, redis="embedded" if services.embedded_redis else "given")  # it may have a password
        fault = None
        if path.exists():
            try:
                before = Begun.model_validate_json(path.read_bytes())
            except ValidationError:
                raise ConfigurationError([f"{path}: cannot be read; remove {path.parent} to begin anew"]) from None
            if before != now:
                fault = (
                    f"{self.folder}: was begun with Kafka {before.kafka} and Redis {before.redis}, now it is Kafka "
                    f"{now.kafka} and Redis {now.redis}; name the same ones, or remove the folder to begin anew"
                )
        elif used_topics:
            fault = (
                f"Kafka at {services.kafka}: has records in {', '.join(used_topics)} that 'graft dev' did not send for "
                f"this start; 'graft --project {shlex.quote(str(project.folder))} reset' removes them, another "
                "stream.topic_prefix leaves them, --keep goes on with what an earlier --keep began"
            )
        if fault:
            raise ConfigurationError([fault])
        with replacing(path) as file:
            file.write(now.model_dump_json().encode() + b"\n")


@contextmanager
def claimed_home(project: Project, *, keeps: bool) -> Iterator[Home]:
    """The folder, for one `graft dev` at a time: GraftError for a second. Empty unless it keeps what was there."""
    root = project.folder / NAME
    with claim_folder(root, _SECOND):
        home = Home(root / ("kept" if keeps else "run"), keeps)
        with writing(root):
            (root / ".gitignore").write_text("*\n", encoding="utf-8")
            if not keeps:
                shutil.rmtree(home.folder, ignore_errors=True)
            home.logs.mkdir(parents=True, exist_ok=True)
        yield home


LIMITS = TopicLimits(retention_bytes=6 * 2**20, segment_bytes=2**20)
"""Little: the embedded broker rewrites all that it keeps once a second, and 20 MB cost a quarter of a core."""

_KEPT_BYTES = LIMITS.retention_bytes - LIMITS.segment_bytes
_MOST_RECORDS = 4_000
_FEWEST_RECORDS = 50
_FIXED_BYTES = 250  # an example's ids of record, times and labels
_VALUE_BYTES = 20  # a feature, or one number of a list
_SPARE = 2.0  # what is on its way through the join, and rows above the mean


def max_lag(spec: FeatureSpec, impression_bytes: float) -> int:
    """How many records a reader may be behind before the replay waits. `impression_bytes`: the mean of an impression.

    The embedded broker removes whole segments, so it keeps at least its bound less one segment; that must hold all
    records that a reader has still to read.
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
        longest = max(task.window_seconds for task in self._project.tasks)
        self._patience = _QUIET_SECONDS + min(_MOST_WAITED_SECONDS, longest + self._project.stream.idle_seconds)
        self._before = (-1, -1)
        self._moved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether it is so now; asked again and again."""
        watch, now, project = self._session.watch, time.monotonic(), self._project
        if (reached := (watch.read, watch.learned)) != self._before:
            self._before, self._moved_at = reached, now
        quiet = now - self._moved_at
        if not self._session.is_sent() or quiet < _QUIET_SECONDS or (watch.pending != 0 and quiet < self._patience):
            return False
        kafka = self._session.setting.services.kafka
        stream, learner = (lag_of(kafka, project.topics, group) for group in (STREAM_GROUP, LEARNER_GROUP))
        # Of each partition the last offset is the marker of a transaction, which no reader takes. And a learner that
        # set aside all of the last examples does not commit its position.
        return stream.records == 0 and (learner.records <= project.stream.partitions or quiet > _NOT_NOTED_SECONDS)


_SHOWN_ITEMS = 3
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


def run_dev(options: Options, environment: dict[str, str], console: Console, say: Callable[[str], None]) -> None:
    """Run the project and show what happens; ends once all is learnt, if it `ends`.

    The arguments and errors are those of `running_project`.
    """
    with running_project(options, environment, console, say) as session, Screen(console) as screen:
        paced = options.speed is not None  # the replay makes pauses as the events had them
        if not session.follow(screen, Learnt(session), may_rest=lambda: paced and not session.is_sent()):
            what = "nothing has been read or learnt"
            raise GraftError(
                f"{what} for {STALLED_SECONDS:.0f} s, but not all of what was sent is learnt; see the logs"
            )
        view, watch = session.watch.look(), session.watch
        screen.finish(view)
        _print(console, end_line(view, watch.pending or 0, watch.left_out, watch.dead_letters))
        if not options.ends:
            session.follow(screen, lambda: False, may_rest=lambda: True)


@contextmanager
def running_project(
    options: Options, environment: dict[str, str], console: Console, say: Callable[[str], None]
) -> Iterator[Session]:
    """Prepare the project and start all processes; within the block its events are being sent.

    `environment` has the user's settings; `say` gets what is to stand on standard output. GraftError when a part cannot
    be kept alive. Whatever ends the block ends all that was started.
    """
    # 1. What can be wrong is found first.
    project = _project(options.folder)
    event_file = (options.event_file or project.event_file).resolve()
    check_form(event_file)
    check_times(event_file, time.time_ns() // 1_000_000)
    port = _port(options.port, environment)
    with (
        claimed_home(project, keeps=options.keeps) as home,
        running_services(environment, home.folder if home.keeps else None) as services,
    ):
        # 2. Servers, topics, features, and a first version.
        refuse_silent(services)
        ensure_topics(services.kafka, project.stream, project.topics, LIMITS if services.embedded_kafka else None)
        home.take_up(services, _used_topics(services, project), project)
        settings = environment_of(services, project.folder, home.versions)
        sample = _prepare(
            project, event_file, home, Runner(console, project.folder, settings, home.logs / "preparation.log")
        )
        # 3. All processes, while the events are sent.
        setting = Setting(
            project=project,
            event_file=event_file,
            events=count_events(event_file),
            sent_before=sent_before(home, services, project, event_file),
            pace=() if options.speed is None else ("--speed", f"{options.speed:g}"),
            max_lag=max_lag(load_spec(project.repo), sample.impression_bytes),
            sample=sample,
            asking=options.asking,
            environment=settings,
            ports=choose_ports(port),
            versions=home.versions,
            logs=home.logs,
            started_at=time.monotonic(),
            services=services,
        )
        _print(console, f"logs: {home.logs}")
        try:
            with running_session(setting, console, lambda: say(curl_line(sample, port))) as session:
                yield session
        except GraftError as error:
            kept = f"; or remove {home.folder} to begin anew" if options.keeps else ""
            raise GraftError(f"{error}\nmend what it says, then start it again{kept}") from error


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


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


def _port(given: int | None, environment: dict[str, str]) -> int:
    """The scorer's port: what was asked for, else the default if it is free. ConfigurationError for one in use."""
    asked = given or (load_settings(environment).http_port if environment.get("GRAFT_HTTP_PORT") else None)
    if asked is not None and not is_free_port(asked):
        raise ConfigurationError([f"port {asked}: is in use by another process; name another one with --port"])
    usual = load_settings({}).http_port
    return asked or (usual if is_free_port(usual) else free_port())


def _prepare(project: Project, event_file: Path, home: Home, runner: Runner) -> Sample:
    """Fill the features, and learn a first version from the teacher where there is none yet."""
    for command in FEATURES:
        runner.run(command)
    sample = sample_of(event_file, load_spec(project.repo), project.tasks, project.stream.max_unusable_share)
    if project.teacher is not None and Registry(home.versions).latest() is None:
        try:
            _first_version(project, event_file, home, runner)
        except GraftError as error:
            # Without it the learner publishes a version that knows nothing: that is no reason to end.
            reason = str(error).splitlines()[-1].strip()
            note = f"note: no first version from the teacher alone, the student begins untrained: {reason}"
            _print(runner.console, note)
    return sample


def _first_version(project: Project, event_file: Path, home: Home, runner: Runner) -> None:
    """Learn from the teacher alone, on the users and items of Feast's tables, else on those of the first events."""
    try:
        for command in first_version(project):
            runner.run(command)
    except GraftError as error:
        if _NO_IDS not in str(error):
            raise
        first = home.folder / "first_events.jsonl"
        write_first(event_file, first)
        *_, bootstrap = first_version(project, first)
        runner.run(bootstrap)


def sent_before(home: Home, services: Services, project: Project, event_file: Path) -> int:
    """How many of the file's events earlier starts have sent; ConfigurationError when they were another file's."""
    try:
        return events_sent(services.kafka, project.topics, event_file)
    except ConfigurationError as error:
        if not services.embedded_kafka:
            raise
        # 'graft reset' does not reach a broker that runs with 'graft dev' alone
        raise ConfigurationError([f"{home.folder} is of other events, remove it to begin anew: {error}"]) from None


def end_line(view: View, pending: int, left_out: int, dead_letters: Mapping[str, int]) -> str:
    """What was learnt, left out, or became a dead letter, by code, and how many impressions are still open."""
    line = f"all {view.events:,} events are read, {view.learned:,} examples learnt"
    if left_out:
        line += f"; {left_out:,} impressions were left out, as [sampling] says: see docs/sampling.md"
    if dead_letters:
        codes = ", ".join(f"{count:,} {code}" for code, count in dead_letters.items())
        line += f"; {view.dead_letters:,} events became dead letters: {codes}; docs/dead-letters.md says why each does"
    if pending:
        line += f"; {pending:,} impressions still wait for feedback, as long as their window is open"
    return line


def own_environment(kafka: str | None, redis_url: str | None) -> dict[str, str]:
    """The environment of this process with the servers that were named on the command line."""
    given = {"GRAFT_KAFKA": kafka, "GRAFT_REDIS_URL": redis_url}
    named = {name: value for name, value in given.items() if value}
    return {**os.environ, **named, **{f"{name}_FILE": "" for name in named}}
