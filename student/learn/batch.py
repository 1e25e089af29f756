"""Encoded rows, as arms learn them and the reservoir keeps them.

Shapes: B rows, D dense columns, C categorical columns, K tasks, T teacher tasks, U unshown rows.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import Feature, Value
from runtime.errors import InvalidInputError
from stream.events import Example
from student.learn.setup import LearnerSetup
from teacher_cache.unshown import UnshownRows


class Batch(NamedTuple):
    """Encoded rows with their labels and teacher logits; NaN: no label, no logit. Categories are 64-bit hashes."""

    dense_BD: NDArray[np.float32]
    category_BC: NDArray[np.uint64]
    label_BK: NDArray[np.float32]
    logit_BT: NDArray[np.float32]

    def __len__(self) -> int:
        """B."""
        return len(self.dense_BD)

    def part(self, rows: slice) -> "Batch":
        """Some of the rows."""
        return Batch(self.dense_BD[rows], self.category_BC[rows], self.label_BK[rows], self.logit_BT[rows])


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of all `batches`, in order."""
    return Batch(*(np.concatenate(same) for same in columns(*batches)))


def columns(*batches: Batch) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same column of each batch, column by column."""
    return zip(*batches, strict=True)


def encoded(setup: LearnerSetup, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> Batch:
    """The examples with the teacher's logits of them.

    InvalidInputError for an example that has a fault; see `fault_of`.
    """
    for example in examples:
        if fault := fault_of(setup, example):
            raise InvalidInputError(fault)
    features = setup.spec.encode(setup.spec.columns_of([example.features for example in examples]))
    labels = [[example.labels[task.name] for task in setup.tasks] for example in examples]
    with np.errstate(over="ignore"):  # a label beyond float32 is infinite here; bounds leave it out
        label_BK = np.array(labels, np.float32)
    return Batch(features.dense_BD, features.categorical_BC, label_BK, logit_BT.astype(np.float32))


def encoded_unshown(setup: LearnerSetup, unshown: UnshownRows | None) -> Batch | None:
    """Unshown rows, which have no labels; None when there are none. Those that cannot be encoded are left out."""
    if unshown is None:
        return None
    kept_U = [u for u, row in enumerate(unshown.features) if all(map(_fits, setup.spec.features, row))]
    if not kept_U:
        return None
    features = setup.spec.encode(setup.spec.columns_of([unshown.features[u] for u in kept_U]))
    label_UK = np.full((len(kept_U), len(setup.tasks)), np.nan, np.float32)
    return Batch(features.dense_BD, features.categorical_BC, label_UK, unshown.logit_UT[kept_U].astype(np.float32))


def fault_of(setup: LearnerSetup, example: Example) -> str | None:
    """Why the example cannot be learnt: another feature spec, other features than it has, no label of a task."""
    place = f"example {example.impression_id}"
    if example.spec_id != setup.spec.spec_id:
        return (
            f"{place}: spec_id must be {setup.spec.spec_id}, got {example.spec_id}: "
            "it was joined under other features; learn it with the project of its time, or set another topic_prefix"
        )
    missing = [task.name for task in setup.tasks if task.name not in example.labels]
    if missing:
        return f"{place}: labels must have {', '.join(missing)}, got {sorted(example.labels)}"
    if len(example.features) != len(setup.spec.features):
        return f"{place}: features must have {len(setup.spec.features)} values, got {len(example.features)}"
    for feature, value in zip(setup.spec.features, example.features, strict=True):
        if not _fits(feature, value):
            return f"{place}: {feature.name} must be {_ALLOWED[feature.role]}, got {value!r}"
    return None


_ALLOWED = {
    "dense": "a number",
    "embedding": "a list of numbers of the declared length",
    "categorical": "a number or a text",
}


def _fits(feature: Feature, value: Value) -> bool:
    """Whether a logged value can be encoded; None is a miss, and a passthrough feature is not encoded."""
    role = feature.role
    if value is None or role == "passthrough":
        return True
    if role == "dense":
        return _is_number(value)
    if role == "categorical":
        return not isinstance(value, list)
    return isinstance(value, list) and len(value) == feature.width and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and -_LARGEST <= value <= _LARGEST


_NUMBERS, _LARGEST = (int, float), sys.float_info.max
