"""Keeps values beyond reason out of the statistics and the losses: of dense features, labels and teacher logits.

What is allowed is declared (a task's range) or follows from what was seen. Both arms learn the same bounded rows.
Shapes: B rows, D dense columns, K tasks, T teacher tasks, X = D + K + T columns, S places of the sample of a column, R
places of its newest values.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from stream.tasks import LARGEST_VALUE
from student.learn.batch import Batch
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


_SAMPLE = 256
_NEWEST = 64
"""A fifth or more of what is held, once the sample is thinned: a lasting change is known after about 20 values."""

_FEWEST = 4
"""Values that are known before one counts: the first one of a column has nothing that it could be compared with."""

_BAD_SHARE = 16
"""One held value in this many may be bad, and of few ones two: the bound is a multiple of the largest of the others."""

_REACH = 16.0
"""Times the distance from the median of the farthest good value. At 16, and at 8, no feature or label of 100,000
examples of MovieLens is beyond; of a normal column the bound lies at 30 deviations."""

_FEW_VALUES = 64.0
"""The reach is wider by this over the number of values held: what few of them show is a small part of the column."""

_REFRESH_ROWS = 256
"""Rows after which the bounds follow what is held, and before whenever it has doubled. A value beyond them makes them
follow at once."""


class SeenValues:
    """Holds an even sample of all values of each column, and its newest ones; a NaN is no value.

    A bad value cannot stretch its own bound: that comes from order statistics, not from means. What it holds is a
    function of the values and of where batches end.
    """

    def __init__(self, width: int) -> None:
        self._sample_SX = np.full((_SAMPLE, width), np.nan, np.float32)
        self._newest_RX = np.full((_NEWEST, width), np.nan, np.float32)
        self._seen_X = np.zeros(width, np.int64)
        self._stride_X = np.ones(width, np.int64)
        self._centre_X = np.zeros(width, np.float64)
        self._reach_X = np.full(width, -1.0)
        self._rows = np.zeros(1, np.int64)

    @property
    def centre(self) -> NDArray[np.float64]:
        """The median per column."""
        return self._centre_X

    @property
    def reach(self) -> NDArray[np.float64]:
        """How far from the median a value may be, per column."""
        return self._reach_X

    @property
    def known(self) -> NDArray[np.bool_]:
        """The columns of which enough is known to judge a value."""
        return self._seen_X >= _FEWEST

    def update(self, value_BX: NDArray[np.float32]) -> None:
        """Take B rows in. They count for the bounds by which they are judged."""
        self._remember(value_BX)
        self._rows += len(value_BX)
        if self._rows[0] >= min(_REFRESH_ROWS, self._seen_X.max(initial=0) // 2) or self.far(value_BX).any():
            self._refresh()

    def far(self, value_BX: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The values that are beyond the reach of their columns."""
        return np.asarray(np.abs(value_BX - self._centre_X) > self._reach_X, np.bool_)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {
            "sample": self._sample_SX,
            "newest": self._newest_RX,
            "seen": self._seen_X,
            "stride": self._stride_X,
            "centre": self._centre_X,
            "reach": self._reach_X,
            "rows": self._rows,
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave. A version of an earlier release has none: then it starts anew."""
        for name, own in self.tensors().items():
            if name in tensors:
                own[...] = tensors[name]

    def _remember(self, value_BX: NDArray[np.float32]) -> None:
        present_BX = ~np.isnan(value_BX)
        number_BX = self._seen_X + np.cumsum(present_BX, axis=0) - 1
        self._seen_X += present_BX.sum(axis=0)
        self._thin()
        b, x = np.nonzero(present_BX & (number_BX % self._stride_X == 0))
        self._sample_SX[number_BX[b, x] // self._stride_X[x], x] = value_BX[b, x]
        b, x = np.nonzero(present_BX & (number_BX >= self._seen_X - _NEWEST))
        self._newest_RX[number_BX[b, x] % _NEWEST, x] = value_BX[b, x]

    def _thin(self) -> None:
        """Keep every second value of each full sample, until there is room for all that were seen."""
        while (full_X := self._seen_X > _SAMPLE * self._stride_X).any():
            self._sample_SX[: _SAMPLE // 2, full_X] = self._sample_SX[::2, full_X]
            self._sample_SX[_SAMPLE // 2 :, full_X] = np.nan
            self._stride_X[full_X] *= 2

    def _refresh(self) -> None:
        """Set the bounds to what is held now."""
        newest_RX = np.where(self._stride_X > 1, self._newest_RX, np.nan)  # before, the sample has all values
        held_HX = np.sort(np.concatenate([self._sample_SX, newest_RX]).astype(np.float64), axis=0)
        count_X = (~np.isnan(held_HX)).sum(axis=0)
        self._centre_X[:] = np.where(count_X > 0, _places(held_HX, (count_X - 1) // 2), 0.0)
        distance_HX = np.sort(np.abs(held_HX - self._centre_X), axis=0)
        bad_X = np.maximum(count_X // _BAD_SHARE, np.clip(count_X // _FEWEST, 1, 2))
        farthest_X = np.where(count_X > bad_X, _places(distance_HX, count_X - 1 - bad_X), 0.0)
        # A column that hardly ever varies shows no scale: its size stands for it, and 1 for that of a column of zeros.
        farthest_X = np.where(farthest_X > 0, farthest_X, np.maximum(np.abs(self._centre_X), 1.0))
        self._reach_X[:] = _REACH * (1 + _FEW_VALUES / np.maximum(count_X, 1)) * farthest_X
        self._rows[0] = 0


def _places(sorted_HX: NDArray[np.float64], place_X: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value at `place_X` of each column; at the first place for one below."""
    found_X: NDArray[np.float64] = np.take_along_axis(sorted_HX, np.maximum(place_X, 0)[None], axis=0)[0]
    return found_X
