"""Running counts, sums and means of closed examples, per user and per item."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from features.config import AggregateConfig
from runtime.errors import ConfigurationError, InvalidInputError

Entity = Literal["user", "item"]
EntityId = int | str
Kind = Literal["count", "sum", "mean"]

_EXPRESSION = re.compile(r"(count)|(sum|mean)\(([a-z][a-z0-9_]*)\)")


class Expression(NamedTuple):
    """What a column holds; `task` is "" for a count of examples."""

    kind: Kind
    task: str


def parse_expression(text: str) -> Expression:
    """``count``, ``sum(TASK)`` or ``mean(TASK)``; ConfigurationError for anything else."""
    match = _EXPRESSION.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError([f"must be count, sum(TASK) or mean(TASK), got {text!r}"])
    return Expression("count", "") if match[1] else Expression("sum" if match[2] == "sum" else "mean", match[3])


class Aggregates:
    """The state behind every `[[features.aggregates]]` table; a push holds absolute values, so it may be repeated.

    State of one entity: [event time of its last example in ms, examples, then for each task the sum and the number of
    the labels present]. States of disjoint examples add up: the latest time, and the sums of all that follows.
    """

    def __init__(self, configs: Sequence[AggregateConfig]) -> None:
        self._expressions = {c.push_source: _expressions(c) for c in configs}
        self._tasks: dict[Entity, list[str]] = {}
        for config in configs:
            tasks = self._tasks.setdefault(config.entity, [])
            used = {e.task for e in self._expressions[config.push_source].values() if e.task}
            self._tasks[config.entity] = sorted(used.union(tasks))
        self._states: dict[Entity, dict[EntityId, list[float]]] = {entity: {} for entity in self._tasks}
        self._changed: dict[Entity, set[EntityId]] = {entity: set() for entity in self._tasks}

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks whose labels are aggregated."""
        return frozenset(task for tasks in self._tasks.values() for task in tasks)

    @property
    def entities(self) -> tuple[Entity, ...]:
        """The entities that have aggregates."""
        return tuple(self._tasks)

    def update(
        self, user_id: EntityId, item_id: EntityId, labels: Mapping[str, float | None], event_time_ms: int
    ) -> None:
        """Add one closed example to its user and its item; a label of None does not count."""
        for entity in self._tasks:
            self.add(entity, user_id if entity == "user" else item_id, labels, event_time_ms)

    def add(self, entity: Entity, entity_id: EntityId, labels: Mapping[str, float | None], event_time_ms: int) -> None:
        """Add one closed example to one entity, which has aggregates; a label of None does not count."""
        state = self._states[entity].setdefault(entity_id, self._empty(entity))
        self._add(entity, state, labels, event_time_ms)
        self._changed[entity].add(entity_id)

    def changed(self) -> dict[Entity, list[EntityId]]:
        """The entities updated since `clear_changed`, each in a fixed order."""
        return {entity: sorted(ids, key=str) for entity, ids in self._changed.items()}

    def clear_changed(self) -> None:
        """Forget which entities were updated."""
        for ids in self._changed.values():
            ids.clear()

    def state_of(self, entity: Entity, entity_id: EntityId) -> list[float]:
        """A copy of an entity's state; that of no examples where it has none."""
        return list(self._states[entity].get(entity_id) or self._empty(entity))

    def restore(self, entity: Entity, entity_id: EntityId, state: Sequence[float]) -> None:
        """Set an entity's state to what `state_of` gave; InvalidInputError when it is of other aggregates."""
        if len(state) != len(self._empty(entity)):
            raise InvalidInputError(
                f"aggregates of {entity} {entity_id!r}: the logged state has {len(state)} numbers, the project's "
                f"aggregates need {len(self._empty(entity))}; they changed since: start with a new topic prefix"
            )
        self._states[entity][entity_id] = list(state)

    def rows(self, push_source: str, entity: Entity, ids: Iterable[EntityId]) -> dict[str, list[float]]:
        """One list per column of `push_source`, with a value for each of `ids`."""
        states = [self._states[entity].get(entity_id) or self._empty(entity) for entity_id in ids]
        expressions = self._expressions[push_source]
        return {column: [self._value(entity, e, state) for state in states] for column, e in expressions.items()}

    def _empty(self, entity: Entity) -> list[float]:
        return [0.0] * (2 + 2 * len(self._tasks[entity]))

    def _add(self, entity: Entity, state: list[float], labels: Mapping[str, float | None], event_time_ms: int) -> None:
        state[0] = max(state[0], event_time_ms)
        state[1] += 1
        for at, task in enumerate(self._tasks[entity]):
            label = labels.get(task)
            if label is not None:
                state[2 + 2 * at] += label
                state[3 + 2 * at] += 1

    def _value(self, entity: Entity, expression: Expression, state: Sequence[float]) -> float:
        if expression.kind == "count":
            return state[1]
        at = 2 + 2 * self._tasks[entity].index(expression.task)
        total, labels = state[at], state[at + 1]
        return total if expression.kind == "sum" else total / max(labels, 1.0)


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
