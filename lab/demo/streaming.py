"""The stream phase: starts the stages, sends the events, watches until each has become an example, stops in order."""

import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.project import Project
from lab.demo.client import ScoringClient
from lab.demo.curves import VersionExamples, binary_tasks
from lab.demo.events import EventFile
from lab.demo.live import Screen
from lab.demo.outcome import Outcome
from lab.demo.plan import Plan
from lab.demo.processes import Supervisor
from lab.demo.stages import LEARNER, REPLAY, STREAM, TEACHER, choose_ports, path_stages, replay_stage
from lab.demo.watch import Watch
from lab.demo.witness import Witness
from runtime.errors import GraftError
from student.versions.registry import Registry

_LOOK_SECONDS = 0.5
_START_SECONDS = 60.0  # the imports of torch and Feast take seconds where all stages start at once on one core
_STALLED_SECONDS = 90.0  # longer than a stage takes to restart and to take up its work, on a busy machine
_READ_TO_END_SECONDS = 5.0
_LAST_SWAP_SECONDS = 5.0  # a scorer looks for a new champion several times a second


class Setting(NamedTuple):
    """What a stream phase needs; `environment` has GRAFT_KAFKA and the other settings of the stages."""

    plan: Plan
    project: Project
    events: EventFile
    environment: dict[str, str]
    versions: Path
    logs: Path


def stream_events(setting: Setting, console: Console) -> Outcome:
    """Run the whole path over the event file. GraftError when a stage cannot be kept alive."""
    ports, started_at = choose_ports(), time.monotonic()
    plan, events = setting.plan, setting.events
    client = ScoringClient(
        ports.scorer,
        events.contexts,
        events.items,
        per_second=plan.requests_per_second,
        items_each=plan.items_each,
        started_at=started_at,
    )
    witness = Witness(setting.environment["GRAFT_KAFKA"], setting.project.topics, plan.compared, started_at)
    with Supervisor(setting.logs) as supervisor, witness, client:
        for stage in path_stages(setting.environment, ports):
            supervisor.start(stage)
        tasks = binary_tasks(setting.project.tasks)
        registry = Registry(setting.versions)
        versions = VersionExamples(registry)
        watch = Watch(ports, events, witness.count, client, supervisor, tasks, versions)
        _await_start(watch, supervisor, console)
        supervisor.start(replay_stage(setting.environment, setting.project.folder, plan))
        with Screen(console) as screen:
            _watch_until_through(watch, supervisor, witness, screen)
            for name in (STREAM, TEACHER, LEARNER):
                supervisor.stop(name)
            witness.read_to_end(_READ_TO_END_SECONDS)
            _await_last_swap(client, registry)
            client.stop()
            screen.show(watch.look())
    return Outcome(
        joined=witness.count.joined(events.impression_ids),
        first_examples=witness.first,
        came_at_seconds=witness.came_at_seconds,
        answers=client.answers,
        hits=watch.hits,
        scorer_swaps=watch.scorer_swaps,
        dead_letters=watch.dead_letters,
        examples_of_version=versions.of,
        restarts=supervisor.restarts(),
    )


def _await_start(watch: Watch, supervisor: Supervisor, console: Console) -> None:
    """Return when all stages read: events sent earlier could be dropped from the embedded broker's small topics."""
    deadline = time.monotonic() + _START_SECONDS
    with console.status("the stages start ..."):
        while not watch.is_up():
            supervisor.check()
            if time.monotonic() > deadline:
                raise GraftError(f"the stages did not start within {_START_SECONDS:.0f} s; see {supervisor.log_folder}")
            time.sleep(_LOOK_SECONDS)


def _watch_until_through(watch: Watch, supervisor: Supervisor, witness: Witness, screen: Screen) -> None:
    """Return when all that was sent is learnt, or when the counts have stood still for `_STALLED_SECONDS`."""
    before, moved_at = watch.progress, time.monotonic()
    while not (supervisor.is_done(REPLAY) and watch.is_through()):
        supervisor.check()
        witness.check()
        screen.show(watch.look())
        if watch.progress != before:
            before, moved_at = watch.progress, time.monotonic()
        elif time.monotonic() - moved_at > _STALLED_SECONDS:
            return
        time.sleep(_LOOK_SECONDS)


def _await_last_swap(client: ScoringClient, registry: Registry) -> None:
    """Wait until the scorer has swapped to the last version, `_LAST_SWAP_SECONDS` at most."""
    deadline = time.monotonic() + _LAST_SWAP_SECONDS
    champion = registry.champion()
    while client.answers and client.answers[-1].version != champion and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS / 10)
