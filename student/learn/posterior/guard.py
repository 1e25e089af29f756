"""Learns how much of the student's answer is its own: see `student.versions.served_tensors`.

Shapes: M models (student, control), B rows, K tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.versions.served_tensors import answer, weight_of

_FEWEST_LABELS = 4
"""Of a regression: before so many labels its errors have no scale, and a label is no evidence."""

_LARGEST_GAIN = 5.0
"""Nats that one label can be worth."""

_AT_FIRST = -1.75
"""The log odds of the student before all evidence: a teacher of no use must cost little in the first rows too."""

_CHOICE = 2.0
"""Times the log odds: to rank by the better of two arms is better than to rank by their mean, so the answer chooses
sooner than Bayes' average would."""

_LEAST_EVIDENCE = -4.0
"""Nats: how far a task's labels can speak against the student. Its slopes are learnt, so what was worse at first may
soon be better, and must not win back all that it has lost."""

_MOST_EVIDENCE = 10.0
"""Nats: how far they can speak for it. The weight is 1 from 5.2 on; where a teacher that was long right turns wrong, as
where the labels themselves turn, the control answers after a hundred rows or so, not after as many as it was right."""

_OTHER_TASKS = 3.0
"""Nats that the labels of all other tasks can be worth to one. A teacher that is right is mostly so for all of them;
one that is wrong for another says nothing against it here."""


class Guard:
    """Adds up how much better the student has predicted each label than its control, in nats.

    Before the first label the student answers alone: nothing is known that could speak for its control. A task's odds
    then follow from its own labels, and to a bounded part from those of the other tasks that speak for the student.
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self._binary_K = np.array([task.kind == "binary" for task in tasks])
        self._evidence_K = np.zeros(len(tasks))  # log odds
        self._labels_K = np.zeros(len(tasks))
        self._squares_K = np.zeros(len(tasks))  # the sum of the squared errors of both arms

    def weight(self) -> NDArray[np.float64]:
        """[K]: of the student's own value."""
        return _weight(self._evidence_K, self._labels_K)

    def answer(self, value_MBK: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values [M, B, K] of student and control, with the student's answer in the place of its own."""
        return self._answered(self.weight(), value_MBK)

    def learn(
        self,
        value_MBK: NDArray[np.float32],
        label_BK: NDArray[np.float32],
        weight_B1: NDArray[np.float32] | float = 1.0,
    ) -> NDArray[np.float32]:
        """As `answer`, row by row: the evidence of each row counts for those after it. A NaN is no label.

        `weight_B1`: how many impressions the labels of each row stand for.
        """
        present_BK = np.isfinite(label_BK)
        square_MBK = (value_MBK.astype(np.float64) - label_BK) ** 2
        labels_BK = _before(self._labels_K, present_BK * weight_B1)
        squares_BK = _before(self._squares_K, np.where(present_BK, square_MBK.sum(axis=0), 0) * weight_B1)
        gains_BK = _binary_gain(value_MBK, label_BK), _regression_gain(square_MBK, labels_BK, squares_BK)
        gain_BK = np.where(present_BK, np.where(self._binary_K, *gains_BK), 0) * weight_B1
        evidence_BK = _bounded_before(self._evidence_K, gain_BK.clip(-_LARGEST_GAIN, _LARGEST_GAIN))
        return self._answered(_weight(evidence_BK, labels_BK), value_MBK)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"evidence": self._evidence_K, "labels": self._labels_K, "squares": self._squares_K}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]

    def _answered(self, weight_BK: NDArray[Any], value_MBK: NDArray[np.float32]) -> NDArray[np.float32]:
        student_BK, control_BK = value_MBK
        if (weight_BK == 1).all():  # mostly: a right teacher is known within some hundred rows
            return value_MBK
        mean_BK = answer(weight_BK, student_BK.astype(np.float64), control_BK.astype(np.float64), self._binary_K)
        return np.stack([mean_BK.astype(np.float32), control_BK])


def _weight(evidence_XK: NDArray[np.float64], labels_XK: NDArray[np.float64]) -> NDArray[np.float64]:
    others_XK = evidence_XK.sum(axis=-1, keepdims=True) - evidence_XK
    odds_XK = _CHOICE * (_AT_FIRST + evidence_XK + others_XK.clip(0, _OTHER_TASKS))
    return np.where(labels_XK.any(axis=-1, keepdims=True), weight_of(odds_XK), 1.0)


def _before(total_K: NDArray[np.float64], added_BK: NDArray[Any]) -> NDArray[np.float64]:
    """The total [B, K] before each row adds to it; `total_K` becomes that after all of them."""
    total_nK = np.cumsum(np.concatenate([total_K[None], added_BK]), axis=0)
    total_K[:] = total_nK[-1]
    return total_nK[:-1]


def _bounded_before(evidence_K: NDArray[np.float64], gain_BK: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `_before`, of evidence that each row leaves between `_LEAST_EVIDENCE` and `_MOST_EVIDENCE`."""
    before_BK = np.empty_like(gain_BK)
    for before_K, gain_K in zip(before_BK, gain_BK, strict=True):
        before_K[:] = evidence_K
        np.clip(evidence_K + gain_K, _LEAST_EVIDENCE, _MOST_EVIDENCE, out=evidence_K)
    return before_BK


def _binary_gain(value_MBK: NDArray[np.float32], label_BK: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much more probable the student found each label, in nats."""
    sign_BK = np.where(label_BK > 0.5, 1.0, -1.0)
    student_BK, control_BK = -np.logaddexp(0, -sign_BK * value_MBK.astype(np.float64))
    gain_BK: NDArray[np.float64] = student_BK - control_BK
    return gain_BK


def _regression_gain(
    square_MBK: NDArray[np.float64], labels_BK: NDArray[np.float64], squares_BK: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same of normal errors, with the variance that those of both arms have had before each row."""
    gain_BK = (square_MBK[1] - square_MBK[0]) * labels_BK / np.where(squares_BK > 0, squares_BK, np.inf)
    return np.where(labels_BK < _FEWEST_LABELS, 0.0, gain_BK)
