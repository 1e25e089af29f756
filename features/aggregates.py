"""Running aggregates of closed examples, per user and per item: sums that add up, and that may decay with a half-life.

The state of one entity is a list of numbers, as the stream logs it:

    event time of the last example in ms, then a block for each half-life of the entity's push sources
    a block without half-life:   examples, then for each task the sum and the number of its labels
    a block with a half-life:    the half-life in seconds, then the same as of the event time of the last example

t seconds after an example its weight is 2^(-t / half-life). Examples add up in any order, to the same state but for
rounding: an older one has decayed already when it is added.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from features.config import AggregateConfig, Expression, parse_expression
from features.spec import Entity, EntityId
from runtime.errors import InvalidInputError

State = list[float]

_NOTHING_HALF_LIVES = 20
_NOTHING = 2.0**-_NOTHING_HALF_LIVES
"""Labels or examples that are fewer than this are none: less than a millionth of one is left."""


class Sums(NamedTuple):
    """What an expression is computed from; fractions of examples where they decay."""

    examples: float
    total: float
    labels: float


class _Block(NamedTuple):
    """Where the sums of one half-life stand: the examples at `begin`, then each task's sum and number of labels."""

    half_life_seconds: float
    begin: int
    end: int
    tasks: tuple[tuple[int, str], ...]
    """Where each task's sum stands, and its name."""

    def reach(self, state: State, event_time_ms: float) -> float:
        """Let the sums decay to this time; the weight of an example of this time, below 1 where a newer one is in."""
        age_seconds = (event_time_ms - state[0]) / 1000
        left: float = 2.0 ** -(abs(age_seconds) / self.half_life_seconds)  # 0 where it is too small for a double
        if age_seconds <= 0:
            return left
        for at in range(self.begin, self.end):
            state[at] *= left
        return 1.0


class StateLayout:
    """Where the sums of an entity stand in its states.

    `tasks` has the tasks of each half-life in seconds, infinite where nothing decays.
    """

    def __init__(self, tasks: Mapping[float, set[str]]) -> None:
        self._blocks: dict[float, _Block] = {}
        self.empty: State = [0.0]
        """The state of no examples."""
        for half_life in sorted(tasks):
            names = tuple(sorted(tasks[half_life]))
            self.empty += [half_life] if half_life < math.inf else []
            begin = len(self.empty)
            self.empty += [0.0] * (1 + 2 * len(names))
            places = tuple(zip(range(begin + 1, len(self.empty), 2), names, strict=True))
            self._blocks[half_life] = _Block(half_life, begin, len(self.empty), places)

    def fault(self, state: Sequence[float]) -> str:
        """Why this cannot be a state of these sums; "" where it can."""
        if len(state) != len(self.empty):
            return f"has {len(state)} numbers, the project's aggregates need {len(self.empty)}"
        for half_life, block in self._blocks.items():
            if half_life < math.inf and state[block.begin - 1] != half_life:
                return f"has a half-life of {state[block.begin - 1]:g} s, the project's is {half_life:g} s"
        return ""

    def add(self, state: State, labels: Mapping[str, float | None], event_time_ms: int) -> None:
        """Add one example to a state; a label of None does not count."""
        for block in self._blocks.values():
            weight = 1.0 if block.half_life_seconds == math.inf else block.reach(state, event_time_ms)
            state[block.begin] += weight
            for at, task in block.tasks:
                label = labels.get(task)
                if label is not None:
                    state[at] += weight * label
                    state[at + 1] += weight
        state[0] = max(state[0], event_time_ms)

    def sums(self, state: State, half_life_seconds: float, task: str) -> Sums:
        """The sums of one task, "" for the number of examples alone, as of the last example."""
        block = self._blocks[half_life_seconds]
        examples = state[block.begin]
        at = next((at for at, name in block.tasks if name == task), None)
        if at is None or state[at + 1] < _NOTHING:
            return Sums(examples, 0.0, 0.0)
        return Sums(examples, state[at], state[at + 1])

    def leaves_ms(self, state: State) -> float:
        """The event time from which less than a millionth of an example is left; infinite where a sum stays."""
        half_lives = (
            half_life * (_NOTHING_HALF_LIVES + math.log2(max(state[block.begin], 1.0)))
            for half_life, block in self._blocks.items()
        )
        return state[0] + 1000 * max(half_lives)


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

    What a state is: features/aggregates.py.
    """

    def __init__(self, configs: Sequence[AggregateConfig]) -> None:
        expressions = {c.push_source: {n: parse_expression(text) for n, text in c.columns.items()} for c in configs}
        self._sources = {
            c.push_source: _Source(c.half_life_seconds or math.inf, expressions[c.push_source]) for c in configs
        }
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
