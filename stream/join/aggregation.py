"""Running aggregates: what closed examples add to them, and how the partition of an entity counts and pushes them.

Impressions are partitioned by impression id, so the examples of an entity close in several partitions. One of them
counts the entity, the *entity's partition*: a hash of its kind and id says which. A record of the updates' topic holds
what one transaction adds to the entities of one partition, so that a busy stream writes few records.

The aggregates of a partition are a function of its updates up to a position, whichever process counts them. So a push
says of which positions its values are, and Redis takes none of an earlier position than it has seen.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol
from zlib import crc32

from pydantic import TypeAdapter, ValidationError

from features.aggregates import Aggregates
from features.spec import Entity, EntityId
from runtime.errors import InvalidInputError
from stream.events import Example
from stream.join.log_cleaner import Entry
from stream.messages import Message

_MOST = 1_000  # updates of a record: with the longest ids it stays far below the topic's 4 MB


class AggregateUpdate(NamedTuple):
    """What one example adds to one entity: itself, and the labels that it has."""

    entity: Entity
    entity_id: EntityId
    labels: dict[str, float]
    event_time_ms: int


_UPDATES = TypeAdapter(list[AggregateUpdate])


def updates_of(example: Example, entities: Iterable[Entity]) -> list[AggregateUpdate]:
    """What an example adds to its user and its item, as far as these are among `entities`."""
    labels = {task: label for task, label in example.labels.items() if label is not None}
    ids: dict[Entity, EntityId] = {"user": example.user_id, "item": example.item_id}
    return [AggregateUpdate(entity, ids[entity], labels, example.event_time_ms) for entity in entities]


def entity_key(entity: Entity, entity_id: EntityId) -> str:
    """Names an entity: the number 1 and the text "1" are two."""
    return f"{entity}:{json.dumps(entity_id)}"


def entity_partition(entity: Entity, entity_id: EntityId, partitions: int) -> int:
    """The entity's partition, the same in every process."""
    return crc32(entity_key(entity, entity_id).encode()) % partitions


def packed(updates: Iterable[AggregateUpdate], partitions: int) -> Iterator[tuple[int, bytes]]:
    """The records that hold these updates: the partition and the value of each. An entity's keep their order."""
    by_partition: dict[int, list[AggregateUpdate]] = defaultdict(list)
    for update in updates:
        by_partition[entity_partition(update.entity, update.entity_id, partitions)].append(update)
    for partition, of_it in sorted(by_partition.items()):
        for start in range(0, len(of_it), _MOST):
            yield partition, _UPDATES.dump_json(of_it[start : start + _MOST])


def unpacked(message: Message) -> Sequence[AggregateUpdate]:
    """The updates of a record; InvalidInputError when it is none that graft wrote."""
    try:
        return _UPDATES.validate_json(message.value or b"")
    except ValidationError as error:
        raise InvalidInputError(
            f"{message.topic}-{message.partition}: offset {message.offset} holds no updates of aggregates "
            f"({error.error_count()} faults, such as {error.errors()[0]['msg']}); only 'graft stream run' may write "
            "there: start again with a new stream.topic_prefix"
        ) from error


_PREFIX = "aggregate"


class AggregatePusher(Protocol):
    """Writes aggregates to the online store."""

    def push(
        self,
        aggregates: Aggregates,
        changed: Mapping[Entity, Sequence[EntityId]],
        shown_ms: int,
        positions: Mapping[int, int],
    ) -> int:
        """Write the absolute values of the changed entities, and remove the rows of those without a state.

        May be repeated. `shown_ms`: event time of the newest impression that was shown before. `positions`: partition
        -> the position in its updates that the values are of. ServiceUnavailableError without Redis; StalePushError
        when it has rows of a later position, which another process has pushed.
        """
        ...


class EntityAggregates:
    """The aggregates of one partition's entities, saved in its state log."""

    def __init__(self, factory: Callable[[], Aggregates]) -> None:
        self._aggregates = factory()
        self._ids: set[tuple[Entity, EntityId]] = set()
        self._waiting: dict[tuple[Entity, EntityId], None] = {}
        self._rowless: set[tuple[Entity, EntityId]] = set()  # left, and their rows are removed
        self._event_time_ms = 0

    @property
    def entities(self) -> tuple[Entity, ...]:
        """The kinds of entities that have aggregates."""
        return self._aggregates.entities

    @property
    def event_time_ms(self) -> int:
        """That of the newest example that was counted."""
        return self._event_time_ms

    @property
    def waiting(self) -> Collection[tuple[Entity, EntityId]]:
        """The entities that changed since the last push that succeeded; at first all that were restored."""
        return self._waiting.keys()

    def count(self, update: AggregateUpdate) -> None:
        """Add one update of one of the partition's entities.

        Those of which nothing is left at the newest example's event time leave: first their rows, and when these are
        removed their entries, so that a restart in between removes the rows again.
        """
        self._event_time_ms = max(self._event_time_ms, update.event_time_ms)
        self._aggregates.add(update.entity, update.entity_id, update.labels, update.event_time_ms)
        self._waiting[update.entity, update.entity_id] = None
        self._evict()  # after it: an update so late that nothing is left of it leaves at once, as after a restart

    def state_of(self, entity: Entity, entity_id: EntityId) -> list[float] | None:
        """A copy of an entity's state; None when it has left."""
        has_state = self._aggregates.has(entity, entity_id)
        return self._aggregates.state_of(entity, entity_id) if has_state else None

    def pushed(self) -> None:
        """All that waited was pushed."""
        self._rowless.update(one for one in self._waiting if not self._aggregates.has(*one))
        self._waiting.clear()

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call."""
        changed = [(entity, i) for entity, ids in self._aggregates.changed().items() for i in ids]
        self._aggregates.clear_changed()
        held = [one for one in changed if self._aggregates.has(*one)]
        gone = [one for one in self._rowless if not self._aggregates.has(*one)]
        self._rowless.clear()
        self._ids.update(held)
        self._ids.difference_update(gone)
        return [*((self._key(*one), self._value(*one)) for one in held), *((self._key(*one), None) for one in gone)]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry as of the last `changes()`; None when it is none of these."""
        one = self._entity(key)
        return self._value(*one) if one and one in self._ids else None

    @staticmethod
    def are_in(entries: Iterable[str]) -> bool:
        """Whether there are aggregates among the entries of these keys."""
        return any(key.startswith(f"{_PREFIX}:") for key in entries)

    def restore(self, entries: Mapping[str, bytes]) -> None:
        """Take back the entries that all `changes()` add up to."""
        for key, value in entries.items():
            if one := self._entity(key):
                state = json.loads(value)
                self._aggregates.restore(*one, state)
                self._event_time_ms = max(self._event_time_ms, int(state[0]))
                self._ids.add(one)
                self._waiting[one] = None
        self._evict()

    def _key(self, entity: Entity, entity_id: EntityId) -> str:
        return f"{_PREFIX}:{entity_key(entity, entity_id)}"

    @staticmethod
    def _entity(key: str) -> tuple[Entity, EntityId] | None:
        kind, _, rest = key.partition(":")
        if kind != _PREFIX:
            return None
        return "user" if rest.startswith("user:") else "item", json.loads(rest.partition(":")[2])

    def _value(self, entity: Entity, entity_id: EntityId) -> bytes:
        return json.dumps(self._aggregates.state_of(entity, entity_id)).encode()

    def _evict(self) -> None:
        for one in self._aggregates.evict(self._event_time_ms):
            self._waiting[one] = None


def push_waiting(
    counted: Mapping[int, EntityAggregates],
    positions: Mapping[int, int],
    shown_ms: int,
    factory: Callable[[], Aggregates],
    pusher: AggregatePusher,
) -> None:
    """Push what waits in these partitions, at once; what the pusher raises leaves it waiting.

    `positions`: partition -> the position in its updates up to which it was counted, and which is committed.
    `shown_ms`: event time of the newest impression that this process has shown before; what others have shown, and it
    has counted, was shown before, too.
    """
    waiting = {number: of_it for number, of_it in counted.items() if of_it.waiting}
    if not waiting:
        return
    values, changed = factory(), dict[Entity, list[EntityId]]()
    for of_it in waiting.values():
        for entity, entity_id in of_it.waiting:
            if (state := of_it.state_of(entity, entity_id)) is not None:
                values.restore(entity, entity_id, state)
            changed.setdefault(entity, []).append(entity_id)
    shown_ms = max(shown_ms, *(of_it.event_time_ms for of_it in waiting.values()))
    pusher.push(values, changed, shown_ms, {number: positions[number] for number in waiting})
    for of_it in waiting.values():
        of_it.pushed()
