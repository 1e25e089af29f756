"""Encoded rows, as arms learn them and the reservoir keeps them.

Shapes: B rows, D dense columns, C categorical columns, K tasks, T teacher tasks.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import Feature, FeatureBatch, Value, hash_category
from runtime.errors import InvalidInputError
from stream.events import EntityId, Example
from student.learn.setup import LearnerSetup


class Batch(NamedTuple):
    """Encoded rows with their labels and teacher logits; NaN: no label, no logit. Categories are 64-bit hashes.

    `weight_B1`: how many impressions the labels of a row stand for, see `Example.weight`.
    """

    dense_BD: NDArray[np.float32]
    category_BC: NDArray[np.uint64]
    label_BK: NDArray[np.float32]
    logit_BT: NDArray[np.float32]
    weight_B1: NDArray[np.float32]

    def __len__(self) -> int:
        """B."""
        return len(self.dense_BD)

    def part(self, rows: slice) -> "Batch":
        """Some of the rows."""
        parts: Iterator[Any] = (column[rows] for column in self)
        return Batch(*parts)

    def replaced(self, **columns: NDArray[Any]) -> "Batch":
        """The same rows with other columns; `_replace` would take `len` for the number of columns."""
        return Batch(**{**self._asdict(), **columns})


def weights_of_one(rows: int) -> NDArray[np.float32]:
    """[B, 1]: of rows that stand for themselves alone."""
    return np.ones((rows, 1), np.float32)


def saved_batch(tensors: Mapping[str, NDArray[Any]]) -> Batch:
    """The rows that were saved under the names of their columns. An earlier release saved no weights: all were 1."""
    saved = {name: tensors[name] for name in Batch._fields if name in tensors}
    return Batch(**{"weight_B1": weights_of_one(len(tensors["label_BK"])), **saved})


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of all `batches`, in order."""
    return Batch(*(np.concatenate(same) for same in columns(*batches)))


def columns(*batches: Batch) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same column of each batch, column by column."""
    return zip(*batches, strict=True)


class Encoded(NamedTuple):
    """Examples without their teacher's logits: of each its fault, or None, and those without one as rows."""

    faults: list[str | None]
    features: FeatureBatch
    label_BK: NDArray[np.float32]
    time_B: NDArray[np.int64]
    """Event times of their impressions, in ms."""
    user_B: NDArray[np.uint64]
    """The hashes of their ids."""
    item_B: NDArray[np.uint64]
    weight_B1: NDArray[np.float32]
    drawn_B: NDArray[np.bool_]
    """Whether nobody was shown it: `Example.sampled`."""

    def part(self, examples: slice, rows: slice) -> "Encoded":
        """Some of the examples, of which these are the rows without a fault."""
        parts: Iterator[Any] = (column[rows] for column in self[2:])
        return Encoded(self.faults[examples], self.features.part(rows), *parts)

    def with_logits(self, logit_BT: NDArray[np.float32], from_ms: int) -> Batch:
        """The rows with the teacher's logits of them; those before the event time `from_ms` have none."""
        may_B1 = (self.time_B >= from_ms)[:, None]
        seen_BT = np.where(may_B1, logit_BT, np.nan).astype(np.float32)
        return Batch(*self.features, self.label_BK, seen_BT, self.weight_B1)


def encode(setup: LearnerSetup, examples: Sequence[Example]) -> Encoded:
    """Encode examples, and find those that cannot be; see `fault_of`."""
    if (features := _encoded_if_sound(setup, examples)) is not None:
        return _encoded([None] * len(examples), setup, examples, features)
    faults = [fault_of(setup, example) for example in examples]
    sound = [example for example, fault in zip(examples, faults, strict=True) if fault is None]
    return _encoded(faults, setup, sound, setup.spec.encode(_columns(setup, sound)))


def encoded(setup: LearnerSetup, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> Batch:
    """The examples with the teacher's logits of them; InvalidInputError for one that has a fault, see `fault_of`."""
    found = encode(setup, examples)
    raise_first(found.faults)
    return found.with_logits(logit_BT, setup.logits_from_ms)


def raise_first(faults: Sequence[str | None]) -> None:
    """InvalidInputError with the first fault, if there is one."""
    for fault in faults:
        if fault is not None:
            raise InvalidInputError(fault)


def hashes(column: str, ids: Sequence[EntityId]) -> NDArray[np.uint64]:
    """Of user or item ids."""
    return np.array([hash_category(column, one) for one in ids], np.uint64)


def _encoded(
    faults: list[str | None], setup: LearnerSetup, examples: Sequence[Example], features: FeatureBatch
) -> Encoded:
    labels = [[example.labels[task.name] for task in setup.tasks] for example in examples]
    with np.errstate(over="ignore"):  # a label beyond float32 is infinite here; bounds leave it out
        label_BK = np.array(labels, np.float32).reshape(len(examples), len(setup.tasks))
    time_B = np.array([example.event_time_ms for example in examples], np.int64)
    user_B = hashes("user_id", [example.user_id for example in examples])
    item_B = hashes("item_id", [example.item_id for example in examples])
    weight_B1 = np.array([example.weight for example in examples], np.float32).reshape(-1, 1)
    drawn_B = np.array([example.sampled is not None for example in examples], np.bool_)
    return Encoded(faults, features, label_BK, time_B, user_B, item_B, weight_B1, drawn_B)


def _columns(setup: LearnerSetup, examples: Sequence[Example]) -> dict[str, list[Value]]:
    """The features by name; the teacher's profiles are missing in examples from before its training data end."""
    columns = setup.spec.columns_of([example.features for example in examples])
    before = [n for n, example in enumerate(examples) if example.event_time_ms < setup.logits_from_ms]
    for feature in setup.spec.features if before else ():
        if feature.profile_of:
            for n in before:
                columns[feature.name][n] = None
    return columns


def _encoded_if_sound(setup: LearnerSetup, examples: Sequence[Example]) -> FeatureBatch | None:
    """The features of examples without a fault; None where there may be one.

    It looks at whole columns, in a quarter of the time that `fault_of` takes to look at each value.
    """
    spec, tasks = setup.spec, {task.name for task in setup.tasks}
    if not all(
        example.spec_id == spec.spec_id
        and len(example.features) == len(spec.features)
        and tasks <= example.labels.keys()
        for example in examples
    ):
        return None
    columns = _columns(setup, examples)
    if not all(_has_types(feature, columns[feature.name]) for feature in spec.features):
        return None
    try:
        features = spec.encode(columns)
    except OverflowError:  # an integer that is no float
        return None
    # What is not finite is cut off to float32's largest number, as are numbers beyond it, or stays NaN.
    return features if (np.abs(features.dense_BD) < _LARGEST_SINGLE).all() else None


def _has_types(feature: Feature, values: Sequence[Any]) -> bool:
    """Whether all values of a column are of types that can be encoded; False for some that can be, too."""
    types = set(map(type, values))
    if feature.role == "passthrough":
        return True
    if feature.role == "categorical":
        return list not in types
    if feature.role == "dense":
        return types <= _NUMBERS_OR_MISSING
    lists = [value for value in values if value is not None]
    is_wide = types <= _LISTS_OR_MISSING and set(map(len, lists)) <= {feature.width}
    return is_wide and set(map(type, chain.from_iterable(lists))) <= _NUMBERS_OR_MISSING - {type(None)}


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
_NUMBERS_OR_MISSING, _LISTS_OR_MISSING = {int, float, type(None)}, {list, type(None)}
_LARGEST_SINGLE = np.finfo(np.float32).max
