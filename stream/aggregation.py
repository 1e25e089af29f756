"""Running aggregates of closed examples: one partial state per partition, and their total, which is pushed.

Impressions are partitioned by impression id, so an entity's examples lie in several partitions and their partial
states are added. With several stream instances each total covers its own instance's partitions only.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from features.aggregates import Aggregates, Entity, EntityId
from stream.events import Example
from stream.join import Entry

_PREFIX = "aggregate"


class AggregatePusher(Protocol):
    """Writes aggregates to the online store."""

    def push(self, aggregates: Aggregates, changed: Mapping[Entity, Sequence[EntityId]], event_time_ms: int) -> int:
        """Write the absolute values of the changed entities, and remove the rows of those without a state.

        May be repeated. `event_time_ms`: of the newest impression that was shown before. ServiceUnavailableError
        without Redis.
        """
        ...


class PartialAggregates:
    """The aggregates of one partition's examples, saved in its state log."""

    def __init__(self, factory: Callable[[], Aggregates]) -> None:
        self.aggregates = factory()
        self._ids: set[tuple[Entity, EntityId]] = set()

    def update(self, example: Example) -> None:
        """Add one example."""
        self.aggregates.update(example.user_id, example.item_id, example.labels, example.event_time_ms)

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call."""
        changed = [(entity, i) for entity, ids in self.aggregates.changed().items() for i in ids]
        self.aggregates.clear_changed()
        self._ids.update(one for one in changed if self.aggregates.has(*one))
        self._ids.difference_update(one for one in changed if not self.aggregates.has(*one))
        return [(self._key(*one), self._value(*one)) for one in changed]

    def forget(self, ids: Iterable[tuple[Entity, EntityId]]) -> None:
        """Drop the states of entities; the next `changes()` say so."""
        for one in ids:
            self.aggregates.forget(*one)

    def entries(self) -> Iterable[Entry]:
        """The whole state, as of the last `changes()`."""
        return ((self._key(*one), self._value(*one)) for one in self._ids)

    def restore(self, entries: Mapping[str, bytes]) -> None:
        """Take back the entries of `entries()` or of all `changes()`."""
        for key, value in entries.items():
            kind, _, rest = key.partition(":")
            if kind == _PREFIX:
                entity: Entity = "user" if rest.startswith("user:") else "item"
                entity_id = json.loads(rest.partition(":")[2])
                self.aggregates.restore(entity, entity_id, json.loads(value))
                self._ids.add((entity, entity_id))

    def ids(self) -> Iterable[tuple[Entity, EntityId]]:
        """The entities with a state, as of the last `changes()` or `restore()`."""
        return self._ids

    def _key(self, entity: Entity, entity_id: EntityId) -> str:
        return f"{_PREFIX}:{entity}:{json.dumps(entity_id)}"

    def _value(self, entity: Entity, entity_id: EntityId) -> bytes | None:
        if not self.aggregates.has(entity, entity_id):
            return None
        return json.dumps(self.aggregates.state_of(entity, entity_id)).encode()


class TotalAggregates:
    """The sum of an instance's partitions, and which of its entities wait to be pushed."""

    def __init__(self, factory: Callable[[], Aggregates], partials: Iterable[PartialAggregates]) -> None:
        self.aggregates = factory()
        self._waiting: dict[Entity, set[EntityId]] = {"user": set(), "item": set()}
        for partial in partials:
            for entity, entity_id in partial.ids():
                self.aggregates.merge(entity, entity_id, partial.aggregates.state_of(entity, entity_id))
                self._waiting[entity].add(entity_id)

    def update(self, example: Example) -> None:
        """Add one example."""
        self.aggregates.update(example.user_id, example.item_id, example.labels, example.event_time_ms)

    def push(self, pusher: AggregatePusher, shown_ms: int, closed_ms: int) -> list[tuple[Entity, EntityId]]:
        """Push what changed since the last push that succeeded, and at first all that was restored.

        `shown_ms`: event time of the newest impression that was shown before. `closed_ms`: the event time that all
        partitions have reached. Of the entities whose sums have decayed to nothing at that time the rows are removed;
        they are returned, and their partial states can go, too.
        """
        self.aggregates.evict(closed_ms)
        for entity, ids in self.aggregates.changed().items():
            self._waiting[entity].update(ids)
        self.aggregates.clear_changed()
        changed: dict[Entity, Sequence[EntityId]] = {e: sorted(ids, key=str) for e, ids in self._waiting.items() if ids}
        if changed:
            pusher.push(self.aggregates, changed, shown_ms)
            self._waiting = {"user": set(), "item": set()}
        return [(e, one) for e, ids in changed.items() for one in ids if not self.aggregates.has(e, one)]
