"""The state behind the running aggregates of one entity: sums that add up, and that may decay with a half-life.

A state is a list of numbers, as the stream logs it:

    event time of the last example in ms, then a block for each half-life of the entity's push sources
    a block without half-life:   examples, then for each task the sum and the number of its labels
    a block with a half-life:    the half-life in seconds, then the same as of the event time of the last example

t seconds after an example its weight is 2^(-t / half-life). Examples add up in any order, to the same state but for
rounding: an older one has decayed already when it is added.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
