"""Running aggregates of closed examples: one partial state per partition, and their total, which is pushed.

Impressions are partitioned by impression id, so an entity's examples lie in several partitions and their partial
states are added. With several stream instances each total covers its own instance's partitions only.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from features.aggregates import Aggregates, Entity, EntityId
from stream.events import Example
from stream.log_cleaner import Entry

_PREFIX = "aggregate"


class AggregatePusher(Protocol):
    """Writes aggregates to the online store."""

    def push(self, aggregates: Aggregates, changed: Mapping[Entity, Sequence[EntityId]], event_time_ms: int) -> int:
        """Write the absolute values of the changed entities; may be repeated. ServiceUnavailableError without Redis."""
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
        self._ids.update(changed)
        return [(self._key(*one), self._value(*one)) for one in changed]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry as of the last `changes()`; None when it is none of these."""
        one = self._entity(key)
        return self._value(*one) if one and one in self._ids else None

    def restore(self, entries: Mapping[str, bytes]) -> None:
        """Take back the entries that all `changes()` add up to."""
        for key, value in entries.items():
            if one := self._entity(key):
                self.aggregates.restore(*one, json.loads(value))
                self._ids.add(one)

    def ids(self) -> Iterable[tuple[Entity, EntityId]]:
        """The entities with a state, as of the last `changes()` or `restore()`."""
        return self._ids

    def _key(self, entity: Entity, entity_id: EntityId) -> str:
        return f"{_PREFIX}:{entity}:{json.dumps(entity_id)}"

    @staticmethod
    def _entity(key: str) -> tuple[Entity, EntityId] | None:
        kind, _, rest = key.partition(":")
        if kind != _PREFIX:
            return None
        return "user" if rest.startswith("user:") else "item", json.loads(rest.partition(":")[2])

    def _value(self, entity: Entity, entity_id: EntityId) -> bytes:
        return json.dumps(self.aggregates.state_of(entity, entity_id)).encode()


class TotalAggregates:
    """The sum of an instance's partitions, and which of its entities wait to be pushed."""

    def __init__(self, factory: Callable[[], Aggregates], partials: Iterable[PartialAggregates]) -> None:
        self.aggregates = factory()
        self._event_time_ms = 0
        self._waiting: dict[Entity, set[EntityId]] = {"user": set(), "item": set()}
        for partial in partials:
            for entity, entity_id in partial.ids():
                self._add(entity, entity_id, partial.aggregates.state_of(entity, entity_id))

    def update(self, example: Example) -> None:
        """Add one example."""
        self.aggregates.update(example.user_id, example.item_id, example.labels, example.event_time_ms)
        self._event_time_ms = max(self._event_time_ms, example.event_time_ms)

    def push(self, pusher: AggregatePusher) -> None:
        """Push what changed since the last push that succeeded, and at first all that was restored."""
        for entity, ids in self.aggregates.changed().items():
            self._waiting[entity].update(ids)
        self.aggregates.clear_changed()
        changed: dict[Entity, Sequence[EntityId]] = {e: sorted(ids, key=str) for e, ids in self._waiting.items() if ids}
        if changed:
            pusher.push(self.aggregates, changed, self._event_time_ms)
            self._waiting = {"user": set(), "item": set()}

    def _add(self, entity: Entity, entity_id: EntityId, state: Sequence[float]) -> None:
        total = self.aggregates.state_of(entity, entity_id)
        newest_ms, sums = max(total[0], state[0]), [a + b for a, b in zip(total[1:], state[1:], strict=True)]
        self.aggregates.restore(entity, entity_id, [newest_ms, *sums])
        self._event_time_ms = max(self._event_time_ms, int(newest_ms))
        self._waiting[entity].add(entity_id)
