"""One run: processes and traffic, kills and troubles, then quiet, and the verdict."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from lab.dev.client import Answer, ScoringClient
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from tests.chaos.events import DEVICES, ITEMS, USERS, Sent
from tests.chaos.follower import Follower
from tests.chaos.intervals import Intervals
from tests.chaos.plan import (
    SERVERS,
    Kill,
    Options,
    Plan,
    PlannedTrouble,
    killable_names,
    plan_of,
    possible_troubles,
    shape_of,
)
from tests.chaos.processes import Ended
from tests.chaos.quiet import await_quiet
from tests.chaos.sender import Sender
from tests.chaos.traffic import traffic_of
from tests.chaos.troubles import TROUBLES, Trouble
from tests.chaos.verdict import (
    Line,
    aggregates_line,
    archive_line,
    drawn_line,
    learner_lines,
    logits_line,
    message_lines,
    outcomes_of,
    scores_line,
    teacher_line,
)
from tests.chaos.world import ARCHIVE, LEARNER, SCORER, TEACHER, World, kill, start_again, takes_connections

_TICK_SECONDS = 0.05
_SENT_SECONDS = 120.0  # after the last message was due: Kafka may have been away until then
_ON_DISK = (LEARNER, ARCHIVE)


class Run:
    """What happens in a world, in its order; `tell` gets a line for each event."""

    def __init__(self, world: World, plan: Plan, tell: Callable[[str], None]) -> None:
        self._world, self._plan, self._tell = world, plan, tell
        self._began = 0.0
        self._kills: list[Kill] = list(plan.kills)
        self._begins: list[PlannedTrouble] = list(plan.troubles)
        self._current: tuple[float, str, Trouble] | None = None
        self._away = Intervals(world.seconds)

    def disturb(self, sender: Sender) -> bool:
        """Kill and trouble until the plan is through and all is sent; whether Kafka has taken all of it."""
        self._began = time.monotonic()
        until = self._plan.seconds
        while self._now() < until or self._kills or self._current or not sender.is_done():
            if self._now() > until + _SENT_SECONDS:
                return sender.is_done()
            self._world.processes.tick()
            self._follow()
            self._end_trouble()
            self._begin_trouble()
            self._kill()
            time.sleep(_TICK_SECONDS)
        return True

    def scores(self, answers: Sequence[Answer]) -> Line:
        """The line of the scorer's answers."""
        return scores_line(answers, self._away.of(SCORER))

    def ends(self) -> Line:
        """The line of the processes that ended by themselves, for no reason of the run's.

        A full disk ends who writes to it: compose starts it again.
        """
        unexplained = [end for end in self._world.processes.ended if not self._is_explained(end)]
        count = len(self._world.processes.ended)
        value = f"{count}, {count - len(unexplained)} of them for want of a disk"
        return Line("ended by themselves", value, [str(end) for end in unexplained])

    def _is_explained(self, end: Ended) -> bool:
        return end.name in _ON_DISK and self._away.covers("disk", end.seconds)

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
        if name is None or not (self._kill_server(name) if name in SERVERS else self._world.processes.kill(name)):
            return  # tried again at the next tick
        if name in (SCORER, "kafka"):
            self._away.begin(name)
        self._kills.pop(0)
        self._say(f"kill -9 {name}")

    def _may_be_killed(self, name: str, *, is_early: bool) -> bool:
        if name in SERVERS:
            is_troubled = self._current is not None and self._current[2].of == name
            return not is_troubled and takes_connections(self._server(name))
        return is_early or self._world.is_ready(name)

    def _kill_server(self, name: str) -> bool:
        kill(self._server(name))
        start_again(self._server(name))
        self._world.processes.kills += 1
        return True

    def _server(self, name: str) -> EmbeddedRedis | EmbeddedKafka:
        return self._world.redis if name == "redis" else self._world.kafka

    def _begin_trouble(self) -> None:
        if self._current or not self._begins or self._now() < self._begins[0].at:
            return
        planned = self._begins.pop(0)
        trouble = TROUBLES[planned.name](self._world, Random(planned.seed))
        self._say(f"{planned.name}, for {planned.seconds:.0f} s")
        trouble.begin()
        self._away.begin(SCORER if trouble.of == "process" else trouble.of)  # the scorer may be who stands still
        self._current = self._now() + planned.seconds, planned.name, trouble

    def _end_trouble(self) -> None:
        if not self._current or self._now() < self._current[0]:
            return
        _, name, trouble = self._current
        trouble.end()
        self._current = None
        self._say(f"over: {name}")

    def _follow(self) -> None:
        """Note what is back."""
        troubled = self._current[2].of if self._current else ""
        for what in self._away.open():
            if what == SCORER:
                is_back = troubled != "process" and self._world.is_ready(SCORER)
            else:
                is_back = troubled != what and (what != "kafka" or takes_connections(self._world.kafka))
            if is_back:
                self._away.end(what)


def run_chaos(
    options: Options, folder: Path, kafka_home: str | None, tell: Callable[[str], None], *, with_features: bool = True
) -> list[Line]:
    """Run it in `folder`, which must be empty; the lines of the verdict."""
    with World(folder, shape_of(options), kafka_home) as world:
        if with_features:
            world.fill_features()
        world.start()
        names = killable_names(world.processes.names, is_apache=world.is_apache)
        plan = plan_of(options, names, possible_troubles(is_apache=world.is_apache, has_disk=world.disk is not None))
        _tell_plan(world, options, plan, tell)
        if not world.await_ready():
            return [Line("start", "not ready", [name for name in world.ports if not world.is_ready(name)])]
        window_ms = round(world.shape.window_seconds * 1000)
        traffic = traffic_of(options.seed, options.seconds, options.per_second, window_ms, time.time_ns() // 1_000_000)
        return _disturbed(world, plan, traffic, tell)


def _disturbed(world: World, plan: Plan, traffic: Sequence[Sent], tell: Callable[[str], None]) -> list[Line]:
    """Run it, wait until all is quiet, stop the processes, and judge."""
    topics, partitions = world.project.topics, world.shape.partitions
    invalid = [message.value for message in traffic if message.is_invalid]
    run, stuck = Run(world, plan, tell), list[str]()
    contexts = {user: {"device": DEVICES[0]} for user in USERS}
    client = ScoringClient(world.ports[SCORER], contexts, ITEMS, per_second=10, items_each=10, started_at=world.began)
    with Follower(world.kafka.servers, topics, partitions, frozenset(invalid)) as follower:
        with client:
            with Sender(world.kafka.servers, topics, partitions, traffic) as sender:
                if not run.disturb(sender):
                    stuck.append("Kafka has not taken all messages")
            tell("the troubles are over; waiting until each message has its outcome ...")
            stuck += [sender.fault] if sender.fault else []
            stuck += await_quiet(world, follower, len(traffic))
        if follower.fault:
            return [Line("read", "the verdict cannot be given", [follower.fault, *stuck])]
        teacher = teacher_line(world, follower)
        world.processes.stop(*world.streams, TEACHER, LEARNER, ARCHIVE, SCORER)
        sent = Counter((message.topic, message.value) for message in traffic)
        again = [(message.topic, message.value) for message in sender.again]
        outcomes = outcomes_of(world, follower)
        return [
            Line("kill -9", f"{world.processes.kills}"),
            *message_lines(follower, sent, len(invalid), outcomes, again),
            drawn_line(world, follower, outcomes),
            archive_line(world, follower),
            logits_line(world),
            *learner_lines(world, follower),
            teacher,
            aggregates_line(world, follower, outcomes),
            run.scores(client.answers),
            run.ends(),
            Line("stuck", "no" if not stuck else "yes", stuck),
        ]


def _tell_plan(world: World, options: Options, plan: Plan, tell: Callable[[str], None]) -> None:
    broker = "Apache Kafka" if world.is_apache else "the embedded broker"
    tell(
        f"seed {options.seed}: {options.seconds:.0f} s on {broker}, {world.shape.partitions} partitions, "
        f"{options.per_second:g} impressions/s, {len(plan.kills)} kills, {len(plan.troubles)} troubles; {world.folder}"
    )
    if world.disk is None:
        tell("no disk gets full: one can be mounted by root on Linux alone")
    for planned in plan.troubles:
        tell(f"  planned at {planned.at:.0f} s for {planned.seconds:.0f} s: {planned.name}")
    tell("  planned kills: " + ", ".join(f"{one.names[0]} at {one.at:.0f} s" for one in plan.kills))
