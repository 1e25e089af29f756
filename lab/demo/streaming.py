"""The stream phase of a demo: a session of `graft dev` with a witness, which ends when each event is an example."""

import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.project import Project
from lab.demo.curves import VersionExamples
from lab.demo.events import EventFile
from lab.demo.outcome import Outcome
from lab.demo.plan import MAX_LAG, Plan
from lab.demo.witness import Witness
from lab.dev.live import Screen
from lab.dev.services import Services
from lab.dev.session import Asking, Session, Setting, running_session
from lab.dev.stages import LEARNER, STREAM, TEACHER, choose_ports
from lab.dev.watch import Events, HitRate
from lab.pairs.project_folder import EVENTS
from student.versions.registry import Registry

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
