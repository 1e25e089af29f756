"""kafka-python's clients as the stream uses them, on the simulated broker."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import IllegalStateError, NoError, OffsetOutOfRangeError, TopicAlreadyExistsError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from tests.simulation.group import SESSION_MS, Group
from tests.simulation.log import Record
from tests.simulation.process import Process

_IDLE = (1, 1, 3, 10, 50, 50)
"""How many times its time-out an empty poll takes: a process is not scheduled when it likes."""

_FETCHED = (0, 1, 3, 10, 1_000)
"""How many records of a partition a poll gives at most: a fetch may be under way still."""


class Given(NamedTuple):
    """A record as a consumer gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int
    timestamp_type: int


class Consumer:
    """A consumer with kafka-python's settings: alone, or a static member of a group."""

    def __init__(self, process: Process, **settings: Any) -> None:
        assert settings["enable_auto_commit"] is False
        assert settings["auto_offset_reset"] == "none"
        group_id: str | None = settings.get("group_id")
        self.instance, self.member_id = settings.get("group_instance_id", ""), ""
        self._process, self._broker = process, process.broker
        self._group = group = None if group_id is None else self._broker.group(group_id)
        self._is_committed = settings["isolation_level"] == "read_committed"
        self._topics: Sequence[str] = ()
        self._listener: ConsumerRebalanceListener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._generation = -1
        self._waiting: tuple[float, list[TopicPartition], int] | None = None
        self.sends_heartbeats = True  # here a poll tells a member that it is out
        if group is not None:
            process.members.append(self)

    # What the group's coordinator does.

    def assign(self, partitions: list[TopicPartition], generation: int | None = None) -> None:
        """Take partitions, either by hand or, after a moment, from the group."""
        if generation is None:
            self._positions = dict.fromkeys(partitions, 0)
        else:
            arrives_ms = self._process.timeline.now_ms + self._process.random.random() * 50
            self._waiting = arrives_ms, partitions, generation

    def fall_silent(self) -> None:
        """Send no heartbeats any more; when that lasts for a session, the group goes on without this member."""
        timeline = self._process.timeline
        if self._group is not None:
            timeline.at(timeline.now_ms + SESSION_MS, self._expire)

    def _expire(self) -> None:
        if self._process.is_silent and self._group is not None:
            self._group.remove(self)

    # What the stream calls.

    def subscribe(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        """Ask for partitions of these topics."""
        self._topics, self._listener = topics, listener

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[Given]]:
        """The next records of what is assigned and not paused; waits for them."""
        with self._process.call("poll"):
            if self._group is not None:
                self._take_part(self._group)
            if timeout_ms and not self._has_more():
                self._process.timeline.sleep(timeout_ms * self._process.random.choice(_IDLE))
            self._receive()
            return {at: found for at in list(self._positions) if (found := self._fetched(at))}

    def position(self, at: TopicPartition) -> int:
        """The offset of the next record to be given."""
        if at not in self._positions:
            raise IllegalStateError("Partition is not assigned")
        return self._positions[at]

    def seek(self, at: TopicPartition, offset: int) -> None:
        """Go on from this offset."""
        self._positions[at] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        """Give nothing of these."""
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Give them again."""
        self._paused.difference_update(partitions)

    def paused(self) -> set[TopicPartition]:
        """The partitions that give nothing."""
        return set(self._paused)

    def assignment(self) -> set[TopicPartition]:
        """The partitions that it has."""
        return set(self._positions)

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each begins."""
        with self._process.call("beginnings"):
            return {at: self._broker.logs[at].start for at in partitions}

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where what can be read of each ends."""
        with self._process.call("ends"):
            ends = {at: self._end(at) for at in partitions}
        self._receive()
        return ends

    def committed(self, at: TopicPartition) -> int | None:
        """The group's offset."""
        with self._process.call("committed"):
            assert self._group is not None
            found = self._group.offsets.get(at)
            return found.offset if found else None

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this is in the group."""
        assert self._group is not None
        return ConsumerGroupMetadata(self._group.name, self._generation, self.member_id, self.instance)

    def close(self, **_: object) -> None:
        """Leave; a static member's session runs on."""
        with self._process.call("close"):
            if self._group is not None:
                timeline, group = self._process.timeline, self._group
                timeline.at(timeline.now_ms + SESSION_MS, lambda: group.remove(self))

    def _take_part(self, group: Group) -> None:
        if not self.member_id:
            group.join(self, self._topics)
        elif not group.check(self):
            self._revoke()
            self._positions = {}
            group.join(self, self._topics)
        elif group.must_rejoin(self):
            self._revoke()
            group.rejoin(self)
        self._receive()

    def _revoke(self) -> None:
        self._waiting = None
        if self._listener is not None:
            self._listener.on_partitions_revoked(set(self._positions))

    def _receive(self) -> None:
        """Take the assignment that has come meanwhile; kafka-python does it on a thread of its own."""
        if self._waiting and self._waiting[0] <= self._process.timeline.now_ms and self._listener is not None:
            _, partitions, self._generation = self._waiting
            self._waiting, self._paused = None, set()
            self._positions = dict.fromkeys(partitions, -1)
            self._listener.on_partitions_assigned(partitions)

    def _has_more(self) -> bool:
        return any(at not in self._paused and p < self._end(at) for at, p in self._positions.items())

    def _end(self, at: TopicPartition) -> int:
        log = self._broker.logs[at]
        return log.stable if self._is_committed else len(log.records)

    def _fetched(self, at: TopicPartition) -> list[Given]:
        log, position, end = self._broker.logs[at], self._positions[at], self._end(at)
        if at in self._paused or position >= end:
            return []
        if position < log.start:
            raise OffsetOutOfRangeError({at: position})
        most = self._process.random.choice(_FETCHED)
        found: list[Given] = []
        following = end
        for record in log.committed(position) if self._is_committed else log.all(position):
            if len(found) == most:
                following = record.offset
                break
            found.append(_given(at, record))
        self._positions[at] = following
        return found


def _given(at: TopicPartition, record: Record) -> Given:
    return Given(*at, record.offset, record.key, record.value, record.headers, record.appended_ms, 1)


class Sent:
    """The future of a record; done once it was flushed."""

    def __init__(self, at: TopicPartition, key: bytes | None, value: bytes | None, headers: Any) -> None:
        self.at, self.key, self.value, self.headers = at, key, value, headers
        self.offset = -1

    def get(self, timeout: float | None = None) -> "Sent":  # noqa: ARG002 - kafka-python's signature
        """Itself, which has the offset."""
        assert self.offset >= 0
        return self


class Producer:
    """A transactional producer."""

    def __init__(self, process: Process, transactional_id: str) -> None:
        self._process, self._broker, self._id = process, process.broker, transactional_id
        self._buffer: list[Sent] = []

    def init_transactions(self) -> None:
        """Fence the earlier producers of this id."""
        with self._process.call("init"):
            self._own = self._broker.producer(self._id)
        self._await_markers()

    def begin_transaction(self) -> None:
        """The next records are one transaction."""
        self._await_markers()
        with self._process.call("begin"):
            self._broker.begin(self._own)

    def send(self, topic: str, value: bytes | None, key: bytes | None, headers: Any, partition: int) -> Sent:
        """Buffer a record."""
        self._buffer.append(Sent(TopicPartition(topic, partition), key, value, tuple(headers)))
        return self._buffer[-1]

    def flush(self) -> None:
        """Write what is buffered, in two requests; a fault of "flush" strikes between them too."""
        half = len(self._buffer) // 2
        with self._process.call("flush"):
            self._write(self._buffer[:half])
        with self._process.call("flush"):
            self._write(self._buffer[half:])
        self._buffer = []

    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], identity: ConsumerGroupMetadata
    ) -> None:
        """Add the group's offsets."""
        with self._process.call("offsets"):
            self._broker.check(self._own)
            self._broker.group(identity.group_id).check_identity(identity)
            self._own.transaction.offsets.setdefault(identity.group_id, {}).update(offsets)

    def commit_transaction(self) -> None:
        """Decide it."""
        with self._process.call("commit"):
            self._broker.commit(self._own)

    def close(self, **_: object) -> None:
        """Stop; an open transaction stays open."""

    def _write(self, records: Collection[Sent]) -> None:
        self._broker.check(self._own)
        for record in records:
            record.offset = self._broker.append(
                record.at, record.key, record.value, record.headers, self._own.transaction
            )

    def _await_markers(self) -> None:
        while not self._own.transaction.is_complete():
            self._process.timeline.sleep(5)


class Admin:
    """The admin client."""

    def __init__(self, process: Process) -> None:
        self._process, self._broker = process, process.broker

    def list_topics(self) -> list[str]:
        """The names of the topics."""
        with self._process.call("topics"):
            return list(self._broker.topics)

    def describe_topics(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Each topic with its partitions."""
        with self._process.call("topics"):
            partitions = [{"partition_index": number} for number in range(self._broker.partitions)]
            return [{"name": name, "partitions": partitions} for name in names]

    def describe_configs(self, _resources: object, **_: object) -> dict[str, dict[str, Any]]:
        """No topic's settings, as for a client that may not see them."""
        return {"topic": {}}

    def create_topics(self, topics: Mapping[str, Mapping[str, Any]], **_: object) -> None:
        """Make topics."""
        with self._process.call("topics"):
            for name, made in topics.items():
                if name in self._broker.topics:
                    raise TopicAlreadyExistsError
                self._broker.make_topic(name, made["configs"])

    def list_partition_offsets(self, wanted: Mapping[TopicPartition, OffsetSpec]) -> dict[TopicPartition, Any]:
        """Where each partition ends, open transactions among it."""
        with self._process.call("latest"):
            assert set(wanted.values()) == {OffsetSpec.LATEST}
            return {at: OffsetAndMetadata(len(self._broker.logs[at].records), "", -1) for at in wanted}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Let partitions begin later."""
        with self._process.call("trim"):
            for at, offset in before.items():
                log = self._broker.logs[at]
                log.start = max(log.start, offset)

    def list_group_offsets(self, group: str) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        """A group's offsets."""
        with self._process.call("registered"):
            return {group: dict(self._broker.group(group).offsets)}

    def alter_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> dict[TopicPartition, Any]:
        """Set a group's offsets."""
        with self._process.call("register"):
            self._broker.group(group).offsets.update(offsets)
            return dict.fromkeys(offsets, NoError)

    def describe_groups(self, groups: Sequence[str]) -> dict[str, Any]:
        """Each group's members."""
        with self._process.call("members"):
            return {
                name: {
                    "members": [
                        {"group_instance_id": m.instance, "member_id": m.member_id}
                        for m in self._broker.group(name).members.values()
                    ]
                }
                for name in groups
            }

    def close(self) -> None:
        """Nothing to close."""
