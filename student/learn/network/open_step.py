"""The examples that the posteriors have learnt and the networks have not: those of the step that is not full yet.

Shapes: B examples, M models, K tasks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from student.learn.batch import Batch, concatenate, saved_batch


class Predicted(NamedTuple):
    """B examples as they came, what each model said of them before it learnt them, their event times (ms), their ids.

    Ids are hashes.
    """

    batch: Batch
    value_BMK: NDArray[np.float32]
    time_B: NDArray[np.int64]
    user_B: NDArray[np.uint64]
    item_B: NDArray[np.uint64]


class OpenStep:
    """Collects examples until the networks take a step on them."""

    def __init__(self) -> None:
        self._examples: list[Predicted] = []

    def __len__(self) -> int:
        """How many examples wait."""
        return sum(len(each.batch) for each in self._examples)

    def add(self, examples: Predicted) -> None:
        """The next examples."""
        self._examples.append(examples)

    def take(self) -> Predicted:
        """All examples, of which there is one at least; none wait any more."""
        examples, self._examples = self._together(), []
        return examples

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that waits."""
        tensors: dict[str, NDArray[Any]] = {}
        if self._examples:
            batch, *rest = self._together()
            tensors |= batch._asdict() | dict(zip(Predicted._fields[1:], rest, strict=True))
        return tensors

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `tensors` gave."""
        self._examples = []
        if "label_BK" in tensors:
            self._examples = [Predicted(saved_batch(tensors), *(tensors[name] for name in Predicted._fields[1:]))]

    def _together(self) -> Predicted:
        batch = concatenate([each.batch for each in self._examples])
        rest = zip(*(each[1:] for each in self._examples), strict=True)
        return Predicted(batch, *(np.concatenate(parts) for parts in rest))
