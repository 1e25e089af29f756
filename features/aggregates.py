"""Running aggregates of closed examples, per user and per item."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from features.config import AggregateConfig
from features.decay import State, StateLayout
from features.expressions import Expression, parse_expression
from features.ids import Entity, EntityId
from runtime.errors import ConfigurationError, InvalidInputError


class _Source(NamedTuple):
    """One `[[features.aggregates]]` table; an infinite half-life: nothing decays."""

    half_life_seconds: float
    expressions: dict[str, Expression]


class _Look(NamedTuple):
    """When to look whether a state has decayed to nothing. `number` keeps ids, of two types, out of comparisons."""

    event_time_ms: float
    number: int
    entity_id: EntityId


class Aggregates:
    """The state behind every `[[features.aggregates]]` table; a push holds absolute values, so it may be repeated.

    What a state is: features/decay.py.
    """

    def __init__(self, configs: Sequence[AggregateConfig]) -> None:
        self._sources = {c.push_source: _Source(c.half_life_seconds or math.inf, _expressions(c)) for c in configs}
        entities = dict.fromkeys(config.entity for config in configs)
        self._layouts = {e: _layout([c for c in configs if c.entity == e], self._sources) for e in entities}
        self._states: dict[Entity, dict[EntityId, State]] = {entity: {} for entity in entities}
        self._changed: dict[Entity, set[EntityId]] = {entity: set() for entity in entities}
        self._looks: dict[Entity, list[_Look]] = {entity: [] for entity in entities}
        self._numbers = count()

    @property
    def entities(self) -> tuple[Entity, ...]:
        """The entities that have aggregates."""
        return tuple(self._layouts)

    def add(self, entity: Entity, entity_id: EntityId, labels: Mapping[str, float | None], event_time_ms: int) -> None:
        """Add one closed example to one entity, which has aggregates; a label of None does not count."""
        state = self._states[entity].get(entity_id)
        if state is None:
            state = self._layouts[entity].empty.copy()
            self._layouts[entity].add(state, labels, event_time_ms)
            self._hold(entity, entity_id, state)
        else:
            self._layouts[entity].add(state, labels, event_time_ms)
        self._changed[entity].add(entity_id)

    def changed(self) -> dict[Entity, list[EntityId]]:
        """The entities whose state came, changed or left since `clear_changed`, each in a fixed order."""
        return {entity: sorted(ids, key=str) for entity, ids in self._changed.items()}

    def clear_changed(self) -> None:
        """Forget which entities were updated."""
        for ids in self._changed.values():
            ids.clear()

    def evict(self, event_time_ms: float) -> list[tuple[Entity, EntityId]]:
        """Drop the states of which nothing is left at this event time: 20 half-lives after a single example.

        The entities that left; `changed` names them, too. A state with sums that do not decay never leaves.
        """
        left: list[tuple[Entity, EntityId]] = []
        for entity, looks in self._looks.items():
            while looks and looks[0].event_time_ms <= event_time_ms:
                entity_id = heapq.heappop(looks).entity_id
                state = self._states[entity].get(entity_id)
                if state is None:
                    continue
                if self._layouts[entity].leaves_ms(state) > event_time_ms:
                    self._look_later(entity, entity_id)  # it has had more examples since
                    continue
                del self._states[entity][entity_id]
                self._changed[entity].add(entity_id)
                left.append((entity, entity_id))
        return left

    def has(self, entity: Entity, entity_id: EntityId) -> bool:
        """Whether an entity has a state: without one it has no row in the online store."""
        return entity_id in self._states[entity]

    def state_of(self, entity: Entity, entity_id: EntityId) -> State:
        """A copy of an entity's state; that of no examples where it has none."""
        return list(self._states[entity].get(entity_id) or self._layouts[entity].empty)

    def restore(self, entity: Entity, entity_id: EntityId, state: Sequence[float]) -> None:
        """Give an entity that has none the state that `state_of` gave; InvalidInputError when it is of other sums."""
        if fault := self._layouts[entity].fault(state):
            raise InvalidInputError(
                f"aggregates of {entity} {entity_id!r}: the logged state {fault}; they changed since: start with a new "
                "topic prefix"
            )
        self._hold(entity, entity_id, list(state))

    def rows(self, push_source: str, entity: Entity, ids: Iterable[EntityId]) -> dict[str, list[float]]:
        """One list per column of `push_source`, with a value for each of `ids` as of its last example."""
        source, layout, states = self._sources[push_source], self._layouts[entity], self._states[entity]
        found = [states.get(entity_id) or layout.empty for entity_id in ids]
        return {
            column: [e.value(*layout.sums(state, source.half_life_seconds, e.task)) for state in found]
            for column, e in source.expressions.items()
        }

    def _hold(self, entity: Entity, entity_id: EntityId, state: State) -> None:
        self._states[entity][entity_id] = state
        self._look_later(entity, entity_id)

    def _look_later(self, entity: Entity, entity_id: EntityId) -> None:
        """Look at a state again when it leaves unless more examples come: once in 20 half-lives, not at each one."""
        leaves_ms = self._layouts[entity].leaves_ms(self._states[entity][entity_id])
        if leaves_ms < math.inf:
            heapq.heappush(self._looks[entity], _Look(leaves_ms, next(self._numbers), entity_id))


def _layout(configs: Iterable[AggregateConfig], sources: Mapping[str, _Source]) -> StateLayout:
    """The layout of the states that the tables of one entity share."""
    tasks: dict[float, set[str]] = {}
    for half_life, expressions in (sources[config.push_source] for config in configs):
        tasks.setdefault(half_life, set()).update(e.task for e in expressions.values() if e.task)
    return StateLayout(tasks)


def _expressions(config: AggregateConfig) -> dict[str, Expression]:
    faults: list[str] = []
    expressions: dict[str, Expression] = {}
    for column, text in config.columns.items():
        try:
            expressions[column] = parse_expression(text)
        except ConfigurationError as error:
            faults.append(f"graft.toml: features.aggregates.{config.push_source}.columns.{column} {error}")
    if faults:
        raise ConfigurationError(faults)
    return expressions
