"""Runs all processes of a project, sends the events and watches; `graft dev` and the demo are such sessions."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rich.console import Console

from features.spec import FeatureSpec
from lab.dev.client import ScoringClient
from lab.dev.processes import LEARNER, REPLAY, Supervisor, log_tail, path_stages, replay_stage
from lab.dev.signals import end_if_asked
from lab.dev.watch import Sample, Screen, Setting, Watch
from runtime.errors import GraftError, InvalidInputError
from stream.events import ContextValue, EntityId, Impression
from stream.join.validation import Validator
from stream.replay.event_file import read_events
from stream.tasks import TaskSpec

LOOKED_AT = 10_000


def sample_of(path: Path, spec: FeatureSpec, tasks: Sequence[TaskSpec], max_unusable_share: float) -> Sample:
    """The sample of the first events; InvalidInputError with the first fault when a larger share is unusable."""
    validator, contexts = Validator(spec, tasks), dict[EntityId, Mapping[str, ContextValue]]()
    items, faults, found = Counter[EntityId](), list[str](), 0
    size = looked_at = 0
    for event in islice(read_events(path), LOOKED_AT):
        looked_at += 1
        try:
            read = validator.feedback(event.value) if event.kind == "feedback" else validator.impression(event.value)
        except InvalidInputError as error:
            faults.append(f"line {event.number}: {error}")
            continue
        if isinstance(read, Impression):
            found, size = found + 1, size + len(event.value)
            contexts[read.user_id] = read.context
            items[read.item_id] += 1
    if not looked_at:
        raise InvalidInputError(f"{path}: there are no events in it")
    if not found or len(faults) > max_unusable_share * looked_at:
        first = f"; {faults[0]}" if faults else ""
        raise InvalidInputError(
            f"{path}: of the first {looked_at:,} events {len(faults):,} cannot be used and {found:,} are impressions, "
            f"so nothing could be learnt{first}; 'graft replay FILE --dry-run' tells of all events"
        )
    return Sample(contexts, [item for item, _ in items.most_common()], size / found)


def write_first(path: Path, to: Path, count: int = LOOKED_AT) -> None:
    """The first impressions as an event file of their own, for a command that reads all of its file."""
    shown = (event for event in read_events(path) if event.kind == "impression")
    with to.open("wb") as file:
        for event in islice(shown, count):
            file.write(b'{"type": "impression", ' + event.value.removeprefix(b"{") + b"\n")


LOOK_SECONDS = 0.5
STALLED_SECONDS = 90.0
"""Longer than a stage takes to restart and to take up its work, on a busy machine."""

_START_SECONDS = 180.0  # the imports of torch and Feast take long where all start at once on a busy machine


class Session:
    """All processes of a project at work, while the events are sent."""

    def __init__(self, setting: Setting, supervisor: Supervisor, client: ScoringClient, watch: Watch) -> None:
        self.setting = setting
        self.supervisor, self.client, self.watch = supervisor, client, watch

    def is_sent(self) -> bool:
        """Whether all events are sent."""
        return self.supervisor.is_done(REPLAY)

    def check(self) -> None:
        """GraftError when a stage cannot be kept alive, or a server has ended."""
        self.supervisor.check()
        self.setting.services.check()

    def follow(
        self,
        screen: Screen,
        is_through: Callable[[], bool],
        at_each_look: Callable[[], object] = lambda: None,
        may_rest: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Show views until `is_through`; False when nothing has moved for `STALLED_SECONDS`, unless it `may_rest`."""
        moved_at, before = time.monotonic(), (0, 0)
        while not is_through():
            end_if_asked()
            self.check()
            at_each_look()
            screen.show(self.watch.look())
            if (now := (self.watch.read, self.watch.learned)) != before or may_rest():
                moved_at, before = time.monotonic(), now
            elif time.monotonic() - moved_at > STALLED_SECONDS:
                return False
            time.sleep(LOOK_SECONDS)
        return True


@contextmanager
def running_session(
    setting: Setting, console: Console, when_up: Callable[[], None] = lambda: None
) -> Iterator[Session]:
    """Start all processes; within the block the events are being sent. All end with the block.

    `when_up` is called once scores are answered, before the first event. GraftError when a stage cannot be kept alive.
    """
    sample, asking = setting.sample, setting.asking._asdict()
    client = ScoringClient(setting.ports.scorer, sample.contexts, sample.items, started_at=setting.started_at, **asking)
    environment, has_teacher = setting.environment, setting.project.teacher is not None
    with Supervisor(setting.logs) as supervisor, client:
        for stage in path_stages(environment, setting.ports, has_teacher=has_teacher):
            supervisor.start(stage)
        session = Session(setting, supervisor, client, Watch(setting, client, supervisor))
        _await_start(session, setting.logs, console)
        when_up()
        supervisor.start(replay_stage(environment, setting.event_file, setting.pace, setting.max_lag))
        yield session


def _await_start(session: Session, logs: Path, console: Console) -> None:
    """Return when all stages read: events sent earlier could be dropped from the embedded broker's small topics."""
    deadline = time.monotonic() + _START_SECONDS
    with console.status("the processes start ..."):
        while not session.watch.is_up():
            session.check()
            if time.monotonic() > deadline:
                raise GraftError(
                    f"the processes did not start within {_START_SECONDS:.0f} s; see {logs}; the learner's log ends:\n"
                    f"{log_tail(logs / f'{LEARNER}.log')}"
                )
            time.sleep(LOOK_SECONDS)
