"""Keeps values beyond reason out of the statistics and the losses: of dense features, labels and teacher logits.

What is allowed is declared (a task's range) or follows from what was seen. Both arms learn the same bounded rows.
Shapes: B rows, D dense columns, K tasks, T teacher tasks, X = D + K + T columns.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from stream.tasks import LARGEST_VALUE
from student.learn.batch import Batch
from student.learn.network.seen_values import SeenValues
from student.learn.setup import LearnerSetup

FAR_VALUES = Counter(
    "graft_student_far_values_total",
    "Values left out: outside the task's range, or far from all that their column has had",
    ["kind", "name"],
)

_log = logging.getLogger(__name__)


class Bounded(NamedTuple):
    """Rows without the labels and logits that are beyond the bounds: to learn, and for the running statistics.

    `learnt` keeps a dense value that is beyond: the student sees no more than two deviations of it. In `counted` it is
    NaN, so that it moves no mean.
    """

    learnt: Batch
    counted: Batch


class Bounds:
    """The bounds of every column; they follow the rows that are learnt.

    A label is within its task's range where one is declared, is 0 or 1 of a binary task, and of a regression without a
    range neither above 1e9 in size nor far from the labels seen. A teacher logit is likewise. The first three values of
    a feature, a label without a range or a teacher's regression have nothing to be compared with and are left out too,
    unless more of the column come in their step.
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self._columns = tuple(_columns(setup))
        # As float32, like the values: a label of 0.1 lies in [0, 0.1].
        self._low_X = np.array([column.low for column in self._columns], np.float32)
        self._high_X = np.array([column.high for column in self._columns], np.float32)
        self._declared_X = np.array([column.declared for column in self._columns], np.bool_)
        self._compared_X = np.array([column.compared for column in self._columns], np.bool_)
        self._ends = len(setup.spec.dense_names), len(setup.spec.dense_names) + len(setup.tasks)
        self._seen = SeenValues(len(self._columns))
        self._far_X = np.zeros(len(self._columns), np.int64)  # of this process, for its log lines

    def learn(self, batch: Batch) -> Bounded:
        """Let the bounds follow new rows, then apply them to these rows. What is left out is counted and logged."""
        value_BX = self._values(batch)
        outside_BX = self._outside(value_BX)
        self._seen.update(np.where(outside_BX | self._declared_X, np.nan, value_BX))
        far_BX = self._far(value_BX) | outside_BX
        if far_BX.any():
            self._tell(value_BX, far_BX)
        return self._bounded(batch, value_BX, far_BX)

    def apply(self, batch: Batch) -> Batch:
        """The rows without what is beyond the bounds as they are now; they are not counted."""
        value_BX = self._values(batch)
        return self._bounded(batch, value_BX, self._far(value_BX) | self._outside(value_BX)).learnt

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return self._seen.tensors()

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        self._seen.restore(tensors)

    def _values(self, batch: Batch) -> NDArray[np.float32]:
        return np.concatenate([batch.dense_BD, batch.label_BK, batch.logit_BT], axis=1)

    def _outside(self, value_BX: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The values that no row may have, whatever was seen."""
        return np.asarray((value_BX < self._low_X) | (value_BX > self._high_X), np.bool_)

    def _far(self, value_BX: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The values that are far from what was seen, of the columns for which nothing is declared."""
        return self._seen.far(value_BX) & self._seen.known & ~self._declared_X

    def _bounded(self, batch: Batch, value_BX: NDArray[np.float32], left_out_BX: NDArray[np.bool_]) -> Bounded:
        left_out_BX = left_out_BX | (self._compared_X & ~self._seen.known)
        if not left_out_BX.any():
            return Bounded(batch, batch)
        counted_BX = np.where(left_out_BX, np.float32(np.nan), value_BX)
        dense_BD, label_BK, logit_BT = map(np.ascontiguousarray, np.split(counted_BX, self._ends, axis=1))
        learnt = batch.replaced(label_BK=label_BK, logit_BT=logit_BT)
        return Bounded(learnt, learnt.replaced(dense_BD=dense_BD))

    def _tell(self, value_BX: NDArray[np.float32], far_BX: NDArray[np.bool_]) -> None:
        """Count per column; log a line when a column's count reaches a power of two."""
        before_X = self._far_X.copy()
        self._far_X += far_BX.sum(axis=0)
        for x in np.flatnonzero(far_BX.any(axis=0)):
            column = self._columns[x]
            FAR_VALUES.labels(column.kind, column.name).inc(int(self._far_X[x] - before_X[x]))
            if int(self._far_X[x]).bit_length() > int(before_X[x]).bit_length():
                value = value_BX[far_BX[:, x], x][0]
                _log.warning("%s count=%d", self._told(int(x), float(value)), self._far_X[x])

    def _told(self, x: int, value: float) -> str:
        column, centre, reach = self._columns[x], self._seen.centre[x], self._seen.reach[x]
        low, high = max(column.low, centre - reach), min(column.high, centre + reach)
        if column.declared:
            low, high = column.low, column.high
        return f"{column.kind} {column.name}: {value:g} is left out; it must be in [{low:g}, {high:g}]{column.advice}"


class _Column(NamedTuple):
    """What a column is, and what it may hold whatever was seen.

    `declared`: nothing else bounds it. `compared`: a value without others to compare it with does not count.
    """

    kind: str
    name: str
    low: float
    high: float
    declared: bool = False
    compared: bool = True
    advice: str = ""


def _columns(setup: LearnerSetup) -> Iterator[_Column]:
    for name in setup.spec.dense_names:
        yield _Column("feature", name, -np.inf, np.inf)
    for task in setup.tasks:
        low, high = task.bounds
        declared = task.kind == "binary" or task.range is not None
        advice = "" if declared else "; if such labels are meant, declare the task's range in graft.toml"
        yield _Column("label", task.name, low, high, declared, compared=not declared, advice=advice)
    for teacher_task in setup.teacher_tasks:
        # Of a binary one the loss sees a probability, whatever the logit is.
        compared = teacher_task.kind == "regression"
        yield _Column("teacher logit", teacher_task.name, -LARGEST_VALUE, LARGEST_VALUE, compared=compared)
