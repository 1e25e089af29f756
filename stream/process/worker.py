"""The stream process between joining the group and leaving it: read, join, write, exactly once.

Everything between two commits lives in memory only. Any error ends this worker, and a new one restores what was
committed. A restart inside the process is the same as a kill, so there is one way to recover.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kafka import TopicPartition

from features.aggregates import Aggregates
from features.online.reader import TimedFeatureReader
from features.spec import FeatureSpec, Value
from runtime.errors import ServiceUnavailableError
from runtime.outage import Outage, wait_for
from runtime.telemetry import StopSignal
from runtime.tracing import TRACING, traced, traceparent_in
from stream.config import StreamConfig, Topics
from stream.events import Impression
from stream.join.aggregation import AggregatePusher, AggregateUpdate, packed, push_waiting
from stream.join.partition import Partition
from stream.join.sampling import SamplingConfig
from stream.join.step import Arrival, Effects, StreamStep
from stream.kafka import connection
from stream.kafka.dead_letters import DeadLetter
from stream.kafka.transactions import Outgoing, Transactions
from stream.messages import Message
from stream.process.inputs import Inputs
from stream.process.report import UNDECIDED_SECONDS, Report, UnusableShare, Work
from stream.process.state_log import FLOOR_BYTES, StateLog
from stream.tasks import TaskSpec

_log = logging.getLogger(__name__)
_POLL_MS = 100
_STEP_MESSAGES = 1_000  # joined in one round, of all partitions together
_MAX_UNCOMMITTED = 5_000  # input messages, or records for them: bounds the memory and what a kill repeats
_PURGE_SECONDS = 30.0  # between two deletions of counted updates: what lies there meanwhile is a matter of megabytes
_MAX_BUFFERED = 2_000  # messages of an input that wait for the other one, before it is held


@dataclass(frozen=True)
class StreamJob:
    """What a stream process joins, and with what."""

    kafka_servers: str
    config: StreamConfig
    topics: Topics
    tasks: Sequence[TaskSpec]
    spec: FeatureSpec
    reader: TimedFeatureReader
    aggregates_factory: Callable[[], Aggregates]
    pusher: AggregatePusher
    instance: str
    sampling: SamplingConfig = SamplingConfig()  # noqa: RUF009 - frozen
    log_floor_bytes: int = FLOOR_BYTES


class StreamWorker:
    """One membership of the group: `step()` until it raises or a stop is asked for, then `commit()` and `close()`.

    `excused`: offsets before which messages are put aside however many are unusable.
    """

    def __init__(self, job: StreamJob, stop: StopSignal, excused: Mapping[TopicPartition, int]) -> None:
        self._job = job
        self._stop = stop
        self._step = StreamStep(job.spec, job.tasks, self._features, job.sampling)
        self._partitions: dict[int, Partition] = {}
        self._records: list[Outgoing] = []
        self._updates: list[AggregateUpdate] = []
        self._work = Work()
        self._share = UnusableShare(job.config.max_unusable_share, excused)
        self._report = Report()
        self._ends: dict[TopicPartition, int] = {}
        self._has_more = False
        self._features_outage = Outage("redis", "impressions wait for their features, none is lost")
        # Redis may read and take no writes; examples are joined all the same.
        self._push_outage = Outage("redis", "aggregates wait to be pushed", stops_work=False)
        self._committed_at = self._purged_at = time.monotonic()
        self._admin = connection.admin(job.kafka_servers)
        self._state_log = StateLog(job.kafka_servers, self._admin, job.topics.join_state, job.log_floor_bytes)
        # Before joining the group: a predecessor's transaction is over when its partitions arrive here.
        self._transactions = Transactions(job.kafka_servers, self._admin, job.topics, job.instance)
        self._inputs = Inputs(job.kafka_servers, job.topics, job.instance)

    def step(self) -> bool:
        """One round: read what there is, join it, and commit when it is time.

        Whether the work advances, or there is none: False while messages wait and none is taken.
        """
        # 1. Poll; when partitions came or went, restore ours and start them where their state says.
        messages = self._inputs.poll(0 if self._has_more else _POLL_MS)
        if self._inputs.are_moving():
            return False
        if self._inputs.have_moved():
            self._restore()
            return True
        self._inputs.check_membership(self._admin)
        # 2. Join it, up to the messages whose turn it is, and count what is known of our entities.
        with TRACING.batch("join events", len(messages), (traceparent_in(message.headers) for message in messages)):
            advances = self._join(messages, time.monotonic() * 1000)
        # 3. Commit all of it in one transaction; 4. push the aggregates that changed.
        if self._is_due():
            self.commit()
        self._report.tell(self._partitions.values(), self._ends)
        return advances

    def commit(self) -> None:
        """Write everything since the last commit in one transaction; then push the aggregates that changed.

        MostlyUnusableError, and nothing is written, when nearly no message of an input could be used.
        """
        self._share.check(self._work, self._partitions)
        records, positions = [*self._records, *self._packed_updates()], dict[TopicPartition, int]()
        for number, partition in self._partitions.items():
            if changes := partition.changes():
                records += self._state_log.append(number, changes, partition.entry)
                positions |= {TopicPartition(topic, number): at for topic, at in partition.positions.items()}
        self._committed_at = time.monotonic()
        if records:
            offsets = self._transactions.commit(records, positions, self._inputs.identity)
            self._report.committed(self._work, self._job.topics.impressions)
            self._share.committed(self._work)
            self._forget_uncommitted()
            self._state_log.committed(records, offsets)
            self._purge()
        self._push()

    def is_replaced(self) -> bool:
        """Whether another process of the same instance name has joined the group in this one's place."""
        return self._inputs.is_replaced(self._admin)

    def close(self) -> None:
        """Leave without a commit."""
        for client in (self._inputs, self._transactions, self._admin):
            client.close()
        for outage in (self._features_outage, self._push_outage):
            outage.forget()

    def _restore(self) -> None:
        self._forget_uncommitted()
        self._partitions = {number: self._restored(number) for number in self._inputs.claim()}
        self._push()  # the kill may have come between a commit and its push
        if self._partitions:
            _log.info("partitions %s restored", sorted(self._partitions))

    def _restored(self, number: int) -> Partition:
        job = self._job
        partition = Partition(number, job.topics, job.config, job.tasks, job.aggregates_factory)
        partition.restore(self._state_log.restore(number), time.monotonic() * 1000)
        partition.start_at(self._inputs.start(number, partition.positions))
        return partition

    def _forget_uncommitted(self) -> None:
        self._records, self._updates, self._work = [], [], Work()

    def _join(self, messages: Sequence[Message], now_ms: float) -> bool:
        self._ends = self._inputs.ends(self._partitions)
        arrival = Arrival(messages, self._inputs.caught_up(self._ends), now_ms, time.time_ns() // 1_000_000)
        limit = max(1, _STEP_MESSAGES // max(1, len(self._partitions)))
        effects = self._step.take(self._partitions, arrival, limit)
        self._has_more = any(one.has_more for one in effects)
        self._inputs.hold(
            {at for at in self._ends if self._partitions[at.partition].buffered(at.topic) > _MAX_BUFFERED}
        )
        for one in effects:
            self._collect(one)
        return any(one.taken or one.has_more for one in effects) or all(at in arrival.caught_up for at in self._ends)

    def _features(self, impressions: Sequence[Impression]) -> dict[str, list[Value]]:
        users, items = [i.user_id for i in impressions], [i.item_id for i in impressions]
        contexts, times_ms = [i.context for i in impressions], [i.event_time_ms for i in impressions]
        read = self._job.reader.read_at
        return wait_for(lambda: read(users, items, contexts, times_ms), self._features_outage, self._stop)

    def _collect(self, effects: Effects) -> None:
        topics = self._job.topics
        for topic, outputs, traceparents in (
            (topics.teacher_requests, effects.requests, effects.traceparents),
            (topics.examples, effects.examples, {}),
        ):
            self._records += [
                Outgoing(
                    topic,
                    effects.partition,
                    record.impression_id.encode(),
                    record.model_dump_json().encode(),
                    traced(traceparents.get(record.impression_id)),
                )
                for record in outputs
            ]
        for letter in effects.dead_letters:
            self._put_aside(letter)
        self._updates += effects.updates
        self._work.add(effects)

    def _packed_updates(self) -> Iterator[Outgoing]:
        config, topic = self._job.config, self._job.topics.aggregate_updates
        return (Outgoing(topic, number, None, value) for number, value in packed(self._updates, config.partitions))

    def _put_aside(self, letter: DeadLetter) -> None:
        message = letter.message
        topic = self._job.topics.dead_letters(message.topic)
        self._records.append(Outgoing(topic, message.partition, *letter.record()))

    def _is_due(self) -> bool:
        if max(self._work.taken.total(), len(self._records)) >= _MAX_UNCOMMITTED:
            return True
        waited = time.monotonic() - self._committed_at
        if waited < self._job.config.commit_seconds + UNDECIDED_SECONDS and self._share.is_undecided(self._work):
            return False
        # What sampling left out is no record; its impression's entry goes, and its aggregates move, all the same.
        has_new = self._records or self._work.taken or self._work.left_out
        has_new = has_new or any(p.aggregates.waiting for p in self._partitions.values())
        return waited >= self._job.config.commit_seconds and bool(has_new)

    def _purge(self) -> None:
        """Delete the updates that are counted, now and then: nobody else reads them."""
        if time.monotonic() < self._purged_at + _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        topic = self._job.topics.aggregate_updates
        self._admin.delete_records({TopicPartition(topic, n): p.positions[topic] for n, p in self._partitions.items()})

    def _push(self) -> None:
        """Push what waits; all of it is committed."""
        counted = {number: partition.aggregates for number, partition in self._partitions.items()}
        positions = {n: p.positions[p.updates] for n, p in self._partitions.items()}
        shown_ms = max((partition.shown_ms for partition in self._partitions.values()), default=-1)
        try:
            push_waiting(counted, positions, shown_ms, self._job.aggregates_factory, self._job.pusher)
        except ServiceUnavailableError as error:
            self._push_outage.failed(error)  # the next commit tries again, and pushes all that waits
        else:
            self._push_outage.ended()
