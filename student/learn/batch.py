"""Encoded rows, as arms learn them and the reservoir keeps them.

Shapes: B rows, D dense columns, C categorical columns, K tasks, T teacher tasks, U unshown rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidInputError
from stream.events import Example
from student.learn.setup import LearnerSetup
from student.versions.hashing import embedding_rows
from teacher_cache.unshown import UnshownRows


class Batch(NamedTuple):
    """Encoded rows with their labels and teacher logits; NaN: no label, no logit."""

    dense_BD: NDArray[np.float32]
    row_BC: NDArray[np.int64]
    label_BK: NDArray[np.float32]
    logit_BT: NDArray[np.float32]

    def __len__(self) -> int:
        """B."""
        return len(self.dense_BD)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of all `batches`, in order."""
    return Batch(*(np.concatenate(same) for same in columns(*batches)))


def columns(*batches: Batch) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same column of each batch, column by column."""
    return zip(*batches, strict=True)


def encoded(setup: LearnerSetup, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> Batch:
    """The examples with the teacher's logits of them.

    InvalidInputError for an example of another feature spec or without the label of a task.
    """
    for example in examples:
        _check(setup, example)
    features = setup.spec.encode(setup.spec.columns_of([example.features for example in examples]))
    labels = [[example.labels[task.name] for task in setup.tasks] for example in examples]
    row_BC = embedding_rows(features.categorical_BC, setup.student.table_rows)
    return Batch(features.dense_BD, row_BC, np.array(labels, np.float32), logit_BT.astype(np.float32))


def encoded_unshown(setup: LearnerSetup, unshown: UnshownRows | None) -> Batch | None:
    """Unshown rows, which have no labels; None when there are none."""
    if unshown is None or not unshown.features:
        return None
    features = setup.spec.encode(setup.spec.columns_of(unshown.features))
    label_UK = np.full((len(unshown.features), len(setup.tasks)), np.nan, np.float32)
    row_UC = embedding_rows(features.categorical_BC, setup.student.table_rows)
    return Batch(features.dense_BD, row_UC, label_UK, unshown.logit_UT.astype(np.float32))


def _check(setup: LearnerSetup, example: Example) -> None:
    if example.spec_id != setup.spec.spec_id:
        raise InvalidInputError(
            f"example {example.impression_id}: spec_id must be {setup.spec.spec_id}, got {example.spec_id}: "
            "it was joined under other features; learn it with the project of its time, or set another topic_prefix"
        )
    missing = [task.name for task in setup.tasks if task.name not in example.labels]
    if missing:
        raise InvalidInputError(
            f"example {example.impression_id}: labels must have {', '.join(missing)}, got {sorted(example.labels)}"
        )
