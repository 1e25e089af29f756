"""One run: processes and traffic, kills and troubles, then quiet, and the verdict."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from random import Random

from lab.dev.client import ScoringClient
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, lag
from student.versions.registry import Registry
from tests.chaos.events import DEVICES, ITEMS, USERS, Sent, traffic_of
from tests.chaos.follower import Follower
from tests.chaos.processes import Ended
from tests.chaos.sender import Sender
from tests.chaos.troubles import (
    SERVERS,
    TRAFFIC_SECONDS,
    TROUBLES,
    Kill,
    Outages,
    Plan,
    PlannedTrouble,
    plan_of,
)
from tests.chaos.verdict import (
    Line,
    aggregates_line,
    archive_line,
    learner_lines,
    message_lines,
    outcomes_of,
    scores_line,
    teacher_line,
)
from tests.chaos.world import (
    ARCHIVE,
    LEARNER,
    SCORER,
    TEACHER,
    WINDOW_SECONDS,
    World,
    kill,
    start_again,
    takes_connections,
)

_PER_SECOND = 10.0  # impressions, and requests to the scorer
_TICK_SECONDS = 0.05
_SENT_SECONDS = 120.0  # after the last message was due: Kafka may have been away until then
_QUIET_SECONDS = 180.0  # above every time-out, and above a restart on a busy machine

Tell = Callable[[str], None]


class Run:
    """What happens in a world, in its order; `tell` gets a line for each event."""

    def __init__(self, world: World, plan: Plan, tell: Tell) -> None:
        self._world, self._tell = world, tell
        self._began = 0.0
        self._kills: list[Kill] = list(plan.kills)
        self._troubles: list[PlannedTrouble] = list(plan.troubles)
        self._ends_at = 0.0
        self._trouble: AbstractContextManager[None] | None = None
        self._troubled = ""
        self.outages = Outages(world.began)

    def disturb(self, sender: Sender) -> bool:
        """Kill and trouble until the plan is through and all is sent; whether Kafka has taken all of it."""
        self._began = time.monotonic()
        while self._now() < TRAFFIC_SECONDS or self._kills or self._troubles or self._trouble or not sender.is_done():
            if self._now() > TRAFFIC_SECONDS + _SENT_SECONDS:
                return sender.is_done()
            self._world.processes.tick()
            self._note_what_is_back()
            self._end_trouble()
            self._begin_trouble()
            self._kill()
            time.sleep(_TICK_SECONDS)
        return True

    def ends(self) -> Line:
        """The processes that ended by themselves. A full disk may end who writes to it: compose starts it again."""

        def is_explained(end: Ended) -> bool:
            return end.name in (LEARNER, ARCHIVE) and self.outages.covers("disk", end.seconds)

        ended = self._world.processes.ended
        unexplained = [str(end) for end in ended if not is_explained(end)]
        value = f"{len(ended)}, {len(ended) - len(unexplained)} of them for want of a disk"
        return Line("ended by themselves", value, unexplained)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _say(self, text: str) -> None:
        self._tell(f"[{self._now():7.1f} s] {text}")

    def _kill(self) -> None:
        if not self._kills or self._now() < self._kills[0].at:
            return
        due = self._kills[0]
        names = due.names[:1] if due.is_early else due.names
        name = next((name for name in names if self._may_be_killed(name, is_early=due.is_early)), None)
        if name is None:
            return  # tried again at the next tick
        if name in SERVERS:
            kill(self._server(name))
            start_again(self._server(name))
        elif not self._world.processes.kill(name):
            return
        if name in (SCORER, "kafka"):
            self.outages.begin(name)
        self._kills.pop(0)
        self._say(f"kill -9 {name}")

    def _may_be_killed(self, name: str, *, is_early: bool) -> bool:
        if name in SERVERS:
            return name != self._troubled and takes_connections(self._server(name))
        return is_early or self._world.is_ready(name)

    def _server(self, name: str) -> EmbeddedRedis | EmbeddedKafka:
        return self._world.redis if name == "redis" else self._world.kafka

    def _begin_trouble(self) -> None:
        if self._trouble or not self._troubles or self._now() < self._troubles[0].at:
            return
        planned = self._troubles.pop(0)
        self._say(f"{planned.name}, for {planned.seconds:.0f} s")
        self._troubled = TROUBLES[planned.name].of
        self._trouble = TROUBLES[planned.name].during(self._world, Random(planned.seed))
        self._trouble.__enter__()
        self.outages.begin(self._troubled)
        self._ends_at = self._now() + planned.seconds

    def _end_trouble(self) -> None:
        if self._trouble and self._now() >= self._ends_at:
            self._trouble.__exit__(None, None, None)
            self._trouble, self._troubled = None, ""
            self._say("it is over")

    def _note_what_is_back(self) -> None:
        for what in self.outages.open():
            is_up = self._world.is_ready(SCORER) if what == SCORER else what != "kafka" or self._world.has_kafka()
            if what != self._troubled and is_up:
                self.outages.end(what)


def run_chaos(seed: int, folder: Path, kafka_home: str | None, tell: Tell) -> list[Line]:
    """Run it in `folder`, which must be empty; the lines of the verdict."""
    with World(folder, kafka_home) as world:
        world.start()
        names = [*world.processes.names, *(SERVERS if world.is_apache else SERVERS[:1])]
        plan = plan_of(seed, names, has_disk=world.disk is not None)
        broker = "Apache Kafka" if world.is_apache else "the embedded broker"
        tell(f"seed {seed}: {TRAFFIC_SECONDS:.0f} s on {broker}, {len(plan.kills)} kills; {world.folder}")
        if world.disk is None:
            tell("no disk gets full: one can be mounted by root on Linux alone")
        if not world.await_ready():
            return [Line("start", "not ready", [name for name in world.ports if not world.is_ready(name)])]
        start_ms = time.time_ns() // 1_000_000
        traffic = traffic_of(seed, TRAFFIC_SECONDS, _PER_SECOND, WINDOW_SECONDS * 1000, start_ms)
        return _disturbed(world, plan, traffic, tell)


def _disturbed(world: World, plan: Plan, traffic: Sequence[Sent], tell: Tell) -> list[Line]:
    """Run it, wait until all is quiet, stop the processes, and judge."""
    invalid = [message.value for message in traffic if message.is_invalid]
    run, stuck = Run(world, plan, tell), list[str]()
    contexts = {user: {"device": DEVICES[0]} for user in USERS}
    client = ScoringClient(
        world.ports[SCORER], contexts, ITEMS, per_second=_PER_SECOND, items_each=10, started_at=world.began
    )
    with Follower(world.kafka.servers, world.project.topics, frozenset(invalid)) as follower:
        with client:
            with Sender(world.kafka.servers, world.project.topics, traffic) as sender:
                if not run.disturb(sender):
                    stuck.append("Kafka has not taken all messages")
            tell("the troubles are over; waiting until each message has its outcome ...")
            stuck += [sender.fault] if sender.fault else []
            stuck += _await_quiet(world, follower, len(traffic))
        if follower.fault:
            return [Line("read", "the verdict cannot be given", [follower.fault, *stuck])]
        teacher = teacher_line(world, follower)
        world.processes.stop(*world.streams, TEACHER, LEARNER, ARCHIVE, SCORER)
        sent = Counter((message.topic, message.value) for message in traffic)
        again = [(message.topic, message.value) for message in sender.again]
        outcomes = outcomes_of(world, follower)
        return [
            Line("kill -9", f"{len(plan.kills)}"),
            *message_lines(follower, sent, len(invalid), outcomes, again),
            archive_line(world, follower),
            *learner_lines(world, follower),
            teacher,
            aggregates_line(world, follower, outcomes),
            scores_line(client.answers, run.outages.of(SCORER)),
            run.ends(),
            Line("stuck", "no" if not stuck else "yes", stuck),
        ]


def _await_quiet(world: World, follower: Follower, messages: int) -> Iterator[str]:
    """Wait for the stream, the learner and the teacher, in this order; what has not come to its end in time."""
    registry = Registry(world.versions)

    def has_learnt() -> bool:
        version = registry.latest()
        return bool(version) and registry.load_manifest(version).examples >= len(follower.examples)

    with closing(connection.admin(world.kafka.servers)) as admin:

        def is_decided() -> bool:
            if follower.fault:
                return True
            if len(follower.inputs) < messages or lag(admin, world.project.topics, STREAM_GROUP).records:
                return False
            return not any(outcomes_of(world, follower).faults())

        if not world.await_that(is_decided, _QUIET_SECONDS):
            yield "messages have no outcome, or a wrong one"
    if not world.await_that(has_learnt, _QUIET_SECONDS):
        yield "the learner has not learnt all examples"
    if not world.await_that(lambda: not teacher_line(world, follower).faults, _QUIET_SECONDS):
        yield "the teacher has not scored all requests"
