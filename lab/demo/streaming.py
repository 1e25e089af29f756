"""The stream phase of a demo: a session of `graft dev` with a witness, which ends when each event is an example."""

import threading
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console

from graft.project import Project
from lab.demo.curves import VersionExamples
from lab.demo.events import EventFile
from lab.demo.outcome import Joined, Outcome
from lab.demo.plan import MAX_LAG, Plan
from lab.dev.live import Screen
from lab.dev.services import Services
from lab.dev.session import Asking, Session, Setting, running_session
from lab.dev.stages import LEARNER, STREAM, TEACHER, choose_ports
from lab.dev.watch import Events, HitRate
from lab.pairs.project_folder import EVENTS
from runtime.errors import GraftError
from stream.config import Topics
from stream.log.examples import ExampleReader, ExampleRecord
from student.versions.registry import Registry

_POLL_SECONDS = 0.2


class IdCount:
    """How often each impression id came as an example."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self.examples = 0
        """All that came, doubled ones included."""

    @property
    def distinct(self) -> int:
        """Impressions that became an example."""
        return len(self._times)

    def add(self, impression_id: str) -> None:
        """Count one example."""
        self._times[impression_id] = self._times.get(impression_id, 0) + 1
        self.examples += 1

    def joined(self, impressions: AbstractSet[str]) -> Joined:
        """What became of `impressions`, the distinct valid ids that were sent."""
        came = self._times.keys()
        return Joined(
            impressions=len(impressions),
            examples=self.examples,
            missing=len(impressions - came),
            doubled=self.examples - len(self._times),
            unknown=len(came - impressions),
        )


class Witness:
    """Reads every committed example of the topic in a thread of its own.

    `count` has those that were read so far, `first` is the first `keep` of them, `came_at_seconds` when each was read,
    since `started_at` (of time.monotonic).
    """

    def __init__(self, kafka_servers: str, topics: Topics, keep: int, started_at: float) -> None:
        self.count = IdCount()
        self.first: list[ExampleRecord] = []
        self.came_at_seconds: list[float] = []
        self._started_at = started_at
        self._keep = keep
        self._reader = ExampleReader(kafka_servers, topics, {})
        self._stop = threading.Event()
        self._found_nothing = threading.Event()
        self._failure: GraftError | None = None
        self._thread = threading.Thread(target=self._read_until_stopped, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def check(self) -> None:
        """Raise the error that ended the reading, such as records that were dropped before they were read."""
        if self._failure is not None:
            raise self._failure

    def read_to_end(self, seconds: float) -> None:
        """Return when the topic has nothing more to read, or after `seconds`."""
        for _ in range(2):  # the first of the two looks may have begun before the topic's last record
            self._found_nothing.clear()
            self._found_nothing.wait(seconds / 2)

    def _read_until_stopped(self) -> None:
        try:
            while not self._stop.is_set():
                records = self._reader.poll(_POLL_SECONDS)
                self.first += records[: self._keep - len(self.first)]
                self.came_at_seconds += [time.monotonic() - self._started_at] * len(records)
                for record in records:
                    self.count.add(record.example.impression_id)
                if not records:
                    self._found_nothing.set()
        except GraftError as error:
            self._failure = error


_READ_TO_END_SECONDS = 5.0


class Streaming(NamedTuple):
    """What a stream phase needs; `environment` has GRAFT_KAFKA and the other settings of the stages."""

    plan: Plan
    project: Project
    events: EventFile
    services: Services
    environment: dict[str, str]
    versions: Path
    logs: Path


def stream_events(streaming: Streaming, console: Console) -> Outcome:
    """Run the whole path over the event file. GraftError when a stage cannot be kept alive."""
    setting, events = _setting(streaming), streaming.events
    witness = Witness(streaming.services.kafka, setting.project.topics, streaming.plan.compared, setting.started_at)
    versions, hits = VersionExamples(Registry(streaming.versions)), list[HitRate]()
    with witness, running_session(setting, console) as session, Screen(console) as screen:

        def look() -> None:
            witness.check()
            versions.refresh()
            hits.append(session.watch.hit_rate)

        session.follow(screen, lambda: _is_through(session, witness, len(events.impression_ids)), look)
        session.stop(STREAM, TEACHER, LEARNER)
        witness.read_to_end(_READ_TO_END_SECONDS)
        session.await_last_swap()
        session.client.stop()
        screen.show(session.watch.look())
        look()
    return Outcome(
        joined=witness.count.joined(events.impression_ids),
        first_examples=witness.first,
        came_at_seconds=witness.came_at_seconds,
        answers=list(session.client.answers),
        hits=hits,
        scorer_swaps=session.watch.scorer_swaps,
        dead_letters=session.watch.dead_letters,
        examples_of_version=versions.of,
        restarts={stage: trouble.restarts for stage, trouble in session.supervisor.troubles().items()},
    )


def _is_through(session: Session, witness: Witness, impressions: int) -> bool:
    """Whether all impressions became examples and all of these are learnt."""
    return session.is_sent() and witness.count.distinct >= impressions and session.watch.learned >= impressions


def _setting(streaming: Streaming) -> Setting:
    plan, project, events = streaming.plan, streaming.project, streaming.events
    return Setting(
        title="graft demo",
        project=project,
        event_file=project.folder / EVENTS,
        events=Events(events.events),
        pace=("--rate", f"{plan.events_per_second:g}"),
        max_lag=MAX_LAG,
        sample=events.sample,
        asking=Asking(plan.requests_per_second, plan.items_each, keep=None),
        environment=streaming.environment,
        ports=choose_ports(),
        versions=streaming.versions,
        logs=streaming.logs,
        started_at=time.monotonic(),
        check=streaming.services.check,
    )
