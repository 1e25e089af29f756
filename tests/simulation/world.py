"""A simulated run: the stream's own program (`stream.process.run.run_stream`) in a simulated world, by a schedule."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from kafka import TopicPartition

import runtime.outage
from features.aggregates import Aggregates
from features.push.push_order import StalePushError
from runtime.errors import GraftError, ServiceUnavailableError
from stream.config import StreamConfig, Topics
from stream.join import join, remembered, sampling
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.kafka.topics import ensure_topics
from stream.process import run, worker
from stream.process.state_log import unpacked
from tests.simulation.broker import Broker
from tests.simulation.clients import Admin, Consumer, Producer
from tests.simulation.log import Transaction
from tests.simulation.process import RESTART_MS, Instance, Process, Stop
from tests.simulation.schedule import KNOWN_IMPRESSIONS, Schedule, Sent, Trouble, partition_of
from tests.simulation.timeline import Timeline
from tests.stream.pair import AGGREGATES, SPEC, TASKS, stream_config, topics

TOPICS: Topics = topics("")
INPUTS = (TOPICS.impressions, TOPICS.feedback)
READ = (*INPUTS, TOPICS.aggregate_updates)
_LAST = "last"  # the instance that takes everything over at the end
_FORGOTTEN = 3  # few, since each of them is a dead letter
_CONVERGED_MS = 600_000.0  # beyond every time-out of the stream and of Kafka, several times
_PURGE_SECONDS = 1.0  # a few commits, of which a run has tens
_PUSHED_MS = 15_000.0  # after which all that is committed must be pushed: a start, a restore, a commit and idle polls
_CLOCKED = ("stream.", "runtime.outage")


Rows = dict[tuple[str, object], dict[str, float]]


class Converged(NamedTuple):
    """The examples' values, the updates of each partition's entities, and what the online store has of each entity."""

    examples: list[bytes]
    updates: list[list[bytes]]
    pushed: Rows


class Redis:
    """The online store: features that never change, and what was pushed."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_away = False
        self.pushed: Rows = {}
        self._positions: dict[int, int] = {}

    def read_at(
        self,
        users: Sequence[Any],
        items: Sequence[Any],
        contexts: Sequence[Mapping[str, Any]],
        event_times_ms: Sequence[int],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Each feature's column."""
        with self._world.process.call("read"):
            self._answer()
            hours = [context["hour"] for context in contexts]
            return {"user_id": list(users), "item_id": list(items), "context:hour": hours}

    def push(
        self,
        aggregates: Aggregates,
        changed: Mapping[Any, Sequence[Any]],
        shown_ms: int,  # noqa: ARG002 - a pusher's signature
        positions: Mapping[int, int],
    ) -> int:
        """Keep the values of the changed entities that have any; an outage may begin between two of them."""
        for entity, ids in changed.items():
            with self._world.process.call("push"):
                self._answer()
                self._take_in_order(positions)
                columns = aggregates.rows(f"{entity}_push", entity, ids)
                for at, entity_id in enumerate(ids):
                    self.pushed.pop((entity, entity_id), None)
                    if aggregates.has(entity, entity_id):
                        self.pushed[entity, entity_id] = {name: values[at] for name, values in columns.items()}
        return 0

    def _take_in_order(self, positions: Mapping[int, int]) -> None:
        """As features.push_order does."""
        if any(self._positions.get(number, 0) > position for number, position in positions.items()):
            raise StalePushError("simulated: a later push has come")
        self._positions.update(positions)

    def _answer(self) -> None:
        if self.is_away:
            raise ServiceUnavailableError("simulated: Redis is away")


class World:
    """Everything that a schedule's processes live in, and all that is left of them at the end."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.timeline = Timeline()
        self.random = Random(schedule.seed)
        self.broker = Broker(self.timeline, self.random, schedule.partitions)
        self.redis = Redis(self)
        self.places: dict[tuple[str, int, int], Sent] = {}
        """What was sent, by the topic, partition and offset where it stands."""
        self.converged: list[Converged] = []
        """What there was each time when all was made good: by the schedule's instances, and after the takeover."""
        self.error = ""
        """Why the run did not come to its end; empty otherwise."""
        changes = {"dedup_seconds": schedule.dedup_seconds, "commit_seconds": schedule.commit_seconds}
        self.config: StreamConfig = stream_config("", schedule.partitions).model_copy(update=changes)
        self.faults_end_ms = schedule.end_ms + 10_000
        self._instances = {name: self._instance(name) for name in (*schedule.instances, _LAST)}
        self._processes = {self.timeline.running: self._process(Instance("", {}))}

    @property
    def process(self) -> Process:
        """The process that runs now."""
        return self._processes[self.timeline.running]

    def monotonic(self) -> float:
        """Seconds by the clock of the process that runs now."""
        return self.process.monotonic()

    def time_ns(self) -> int:
        """Nanoseconds since 1970 by its machine's clock."""
        return self.process.time_ns()

    def live(self) -> None:
        """Send everything, let everything go wrong, and wait until all of it is made good.

        Then one fresh process takes everything over, and is sent again what it must know to be a duplicate.
        """
        try:
            ensure_topics("", self.config, TOPICS)
            for sent in self.schedule.sent:
                self.timeline.at(sent.at_ms, lambda sent=sent: self._send(sent))
            for trouble in self.schedule.troubles:
                self._plan(trouble)
            for name in self.schedule.instances:
                self._start(self._instances[name])
            self.timeline.sleep(self.faults_end_ms)
            self._await_convergence()
            self._take_over()
        except Exception as error:  # noqa: BLE001 - whatever ends a process is what a run is to find
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.timeline.end()

    def saved(self, number: int) -> dict[str, bytes]:
        """What the state log of a partition adds up to, had nothing of it ever been deleted."""
        state: dict[str, bytes] = {}
        for record in self.broker.logs[TopicPartition(TOPICS.join_state, number)].committed(whole=True):
            for key, value in unpacked(record.value or b""):
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value
        return state

    def group_offset(self, at: TopicPartition) -> int:
        """How far the stream's group has come; 0 where it has not begun."""
        found = self.broker.group(group_id(TOPICS, STREAM_GROUP)).offsets.get(at)
        return found.offset if found else 0

    def _instance(self, name: str) -> Instance:
        faults = {(fault.call, fault.nth): fault for fault in self.schedule.faults if fault.instance == name}
        instance = Instance(name, faults)
        instance.start = lambda: None if instance.is_retired else self._start(instance)
        return instance

    def _process(self, instance: Instance) -> Process:
        return Process(self.timeline, self.broker, self.random, instance, self.faults_end_ms)

    def _start(self, instance: Instance) -> None:
        process = self._process(instance)
        instance.processes.append(process)
        process.participant = self.timeline.start(lambda: self._run(process))
        self._processes[process.participant] = process

    def _run(self, process: Process) -> None:
        """A process from its start to its end, and what restarts it."""
        instance, floor_bytes = process.instance, self.schedule.limits.floor_bytes
        arguments = ("", self.config, TOPICS, TASKS, SPEC, self.redis, self._aggregates, self.redis)
        try:
            run.run_stream(
                *arguments,
                instance.name,
                Stop(process),
                sampling=self.schedule.sampling,
                log_floor_bytes=floor_bytes,
            )
        except GraftError as error:
            if "has joined and taken over" not in str(error):
                raise
        finally:
            instance.processes.remove(process)
            process.fall_silent()
            if not instance.processes and not instance.is_retired:
                self.timeline.at(self.timeline.now_ms + instance.restart_ms, instance.start)
            instance.restart_ms = RESTART_MS

    def _aggregates(self) -> Aggregates:
        """Those of the tests; the users' decay where the schedule says so."""
        users, items = AGGREGATES
        return Aggregates([users.model_copy(update={"half_life_seconds": self.schedule.half_life_seconds}), items])

    def _send(self, sent: Sent, partition: int | None = None) -> None:
        transaction = Transaction() if sent.is_aborted else None
        number = partition_of(sent.key, self.schedule.partitions) if partition is None else partition
        at = TopicPartition(getattr(TOPICS, sent.kind), number)
        offset = self.broker.append(at, sent.key, sent.value, sent.headers, transaction)
        if transaction:
            self.timeline.at(self.timeline.now_ms + sent.open_ms, lambda: self.broker.abort(transaction))
        self.places[at.topic, at.partition, offset] = sent

    def _plan(self, trouble: Trouble) -> None:
        instance = self._instances[trouble.instance]

        def change(*, begins: bool) -> None:
            if trouble.kind == "redis":
                self.redis.is_away = begins
            elif trouble.kind == "disk":
                self.broker.is_full = begins
            elif trouble.kind == "clock":
                instance.wall_shift_ms += trouble.by_ms if begins else -trouble.by_ms
            elif begins:
                instance.restart_ms = trouble.ms
                for process in instance.processes:
                    process.is_stopping = True

        self.timeline.at(trouble.at_ms, lambda: change(begins=True))
        self.timeline.at(trouble.at_ms + trouble.ms, lambda: change(begins=False))

    def _await_convergence(self) -> None:
        self.redis.is_away = self.broker.is_full = False
        deadline_ms = self.timeline.now_ms + _CONVERGED_MS
        while not self._has_converged():
            assert self.timeline.now_ms < deadline_ms, "with all faults over, the stream has not come to its end"
            self.timeline.sleep(2_000)
        self.timeline.sleep(_PUSHED_MS)
        examples = [value for values in self._values(TOPICS.examples) for value in values]
        self.converged.append(Converged(examples, self._values(TOPICS.aggregate_updates), dict(self.redis.pushed)))

    def _has_converged(self) -> bool:
        """Whether every message was taken, nothing waits in any join, all of that can be read, and all are at work."""
        if not self._are_at_work():
            return False
        if not all(transaction.is_complete() for transaction in self.broker.committed):
            return False
        logs = [self.broker.logs[TopicPartition(t, p)] for t in READ for p in range(self.schedule.partitions)]
        if any(next(log.committed(self.group_offset(log.at)), None) for log in logs):
            return False
        return not any(
            key.startswith(("impression:", "orphans:"))
            for p in range(self.schedule.partitions)
            for key in self.saved(p)
        )

    def _are_at_work(self) -> bool:
        """Whether no instance waits for its next start or stands still: what is committed is pushed soon."""
        last = self._instances[_LAST]
        instances = [last] if last.is_retired else [self._instances[name] for name in self.schedule.instances]
        return all(one.processes and not any(p.is_silent for p in one.processes) for one in instances)

    def _values(self, topic: str) -> list[list[bytes]]:
        """What was ever committed to each partition."""
        logs = [self.broker.logs[TopicPartition(topic, p)] for p in range(self.schedule.partitions)]
        return [[record.value or b"" for record in log.committed(whole=True)] for log in logs]

    def _take_over(self) -> None:
        for name in self.schedule.instances:
            self._instances[name].is_retired = True
            for process in self._instances[name].processes:
                assert process.participant
                self.timeline.kill(process.participant)
        self._send_again()
        for number in range(self.schedule.partitions):  # so that it has restored what it has when all is taken
            self._send(Sent(0.0, "impressions", b"end", b"the end", invalid=True), number)
        last = self._instances[_LAST]
        last.is_retired = True
        self._start(last)
        self._await_convergence()
        (process,) = last.processes
        process.is_stopping = True
        while last.processes:
            self.timeline.sleep(1_000)

    def _send_again(self) -> None:
        """Every impression that is remembered, and some that no longer can be."""
        remembered = {one for p in range(self.schedule.partitions) for one in remembered_in(self.saved(p))}
        shown = [s for s in self.schedule.sent if s.kind == "impressions" and not s.invalid and not s.is_aborted]
        forgotten = [sent for sent in shown if sent.key.decode() not in remembered]
        for sent in [*(sent for sent in shown if sent not in forgotten), *forgotten[:_FORGOTTEN]]:
            self._send(sent)


def remembered_in(saved: Mapping[str, bytes]) -> Iterator[str]:
    """The ids of closed impressions that a saved state remembers."""
    watermark_ms = json.loads(saved["position"])["watermark"]["watermark_ms"] if saved else None
    for key, value in saved.items():
        if key.startswith("remembered:"):
            yield from (one for one, ms in zip(*json.loads(value), strict=True) if ms >= (watermark_ms or 0))


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Give the stream's modules the world's Kafka and clocks in place of the true ones."""
    limits = world.schedule.limits
    runtime.outage._RANDOM.seed(world.schedule.seed)
    clock = SimpleNamespace(monotonic=world.monotonic, time_ns=world.time_ns)
    with ExitStack() as stack:

        def change(owner: ModuleType, **values: object) -> None:
            stack.enter_context(mock.patch.multiple(owner, **values))

        change(
            connection,
            KafkaAdminClient=lambda **_: Admin(world.process),
            Consumer=lambda **settings: Consumer(world.process, **settings),
            Producer=lambda **settings: Producer(world.process, settings["transactional_id"]),
        )
        change(
            worker,
            _STEP_MESSAGES=limits.step_messages,
            _MAX_UNCOMMITTED=limits.uncommitted,
            _MAX_BUFFERED=limits.buffered,
            _PURGE_SECONDS=_PURGE_SECONDS,
        )
        change(join, MOST_ENDED=limits.segment_ids)
        change(sampling, CAPACITY=KNOWN_IMPRESSIONS, _SEGMENT_IMPRESSIONS=limits.segment_ids)
        change(remembered, _SEGMENT_IDS=limits.segment_ids, _MOST_DELETED=limits.segment_ids)
        for module in clocked_modules():
            change(module, time=clock)
        yield


@cache
def clocked_modules() -> tuple[ModuleType, ...]:
    """The modules of the stream process that look at a clock."""
    found = [module for name, module in sys.modules.items() if name.startswith(_CLOCKED)]
    return tuple(module for module in found if getattr(module, "time", None) is time)


def run_schedule(schedule: Schedule) -> World:
    """The world at the end of a schedule."""
    world = World(schedule)
    with simulated(world):
        world.live()
    return world
