"""Progressive validation: every arm is judged on predictions made before their example was learnt.

Shapes: B rows, K tasks, A arms, H histogram bins, W rows of the recent window.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskKind, TaskSpec
from student.manifest import ArmMetrics

ARMS = ("student", "control", "teacher", "item_mean")
RECENT_EXAMPLES = 2000

_BINS = 4096
_LIMIT = 10.0
"""Logits are binned over [-10, 10]: 0.005 a bin. Beyond, sigmoid differs from 0 or 1 by less than 5e-5."""

Metrics = dict[str, dict[str, ArmMetrics]]
"""Task name -> arm -> metrics; an arm that never had a value is left out."""


class ProgressiveEvaluation:
    """Whole-stream metrics from histograms and sums, and exact ones over the last `RECENT_EXAMPLES` from a ring."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self._tasks = tuple(tasks)
        shape_KA = len(self._tasks), len(ARMS)
        self._count_KA = np.zeros(shape_KA, np.int64)
        self._loss_KA = np.zeros(shape_KA, np.float64)
        self._histogram_KA2H = np.zeros((*shape_KA, 2, _BINS), np.int64)
        self._label_WK = np.full((RECENT_EXAMPLES, len(self._tasks)), np.nan, np.float32)
        self._value_WKA = np.full((RECENT_EXAMPLES, *shape_KA), np.nan, np.float32)
        self._next = np.zeros(1, np.int64)

    def update(self, label_BK: NDArray[np.float32], value_BKA: NDArray[np.float32]) -> None:
        """Count B predictions: logits of binary tasks, values of regressions. A NaN label or value is not counted."""
        for k, task in enumerate(self._tasks):
            for a in range(len(ARMS)):
                present_B = ~np.isnan(label_BK[:, k]) & ~np.isnan(value_BKA[:, k, a])
                self._count(k, a, task.kind, label_BK[present_B, k], value_BKA[present_B, k, a])
        place_B = (self._next + np.arange(len(label_BK))) % RECENT_EXAMPLES
        self._label_WK[place_B], self._value_WKA[place_B] = label_BK, value_BKA
        self._next += len(label_BK)

    def whole(self) -> Metrics:
        """Over all examples; AUC from the histograms, to 1e-3."""
        return self._table(self._whole_metrics)

    def recent(self) -> Metrics:
        """Over the last `RECENT_EXAMPLES` examples, exact."""
        return self._table(self._recent_metrics)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {
            "count": self._count_KA,
            "loss": self._loss_KA,
            "histogram": self._histogram_KA2H,
            "label": self._label_WK,
            "value": self._value_WKA,
            "next": self._next,
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]

    def _count(
        self, k: int, a: int, kind: TaskKind, label_B: NDArray[np.float32], value_B: NDArray[np.float32]
    ) -> None:
        self._count_KA[k, a] += len(label_B)
        self._loss_KA[k, a] += losses(kind, label_B, value_B).sum()
        if kind == "binary":
            np.add.at(self._histogram_KA2H[k, a], ((label_B > 0.5).astype(np.intp), _bins(value_B)), 1)

    def _table(self, metrics: Callable[[int, int], ArmMetrics]) -> Metrics:
        return {
            task.name: {arm: metrics(k, a) for a, arm in enumerate(ARMS) if self._count_KA[k, a]}
            for k, task in enumerate(self._tasks)
        }

    def _whole_metrics(self, k: int, a: int) -> ArmMetrics:
        count = int(self._count_KA[k, a])
        return _arm_metrics(
            self._tasks[k].kind, count, float(self._loss_KA[k, a]) / count, histogram_auc(self._histogram_KA2H[k, a])
        )

    def _recent_metrics(self, k: int, a: int) -> ArmMetrics:
        label_W, value_W = self._label_WK[:, k], self._value_WKA[:, k, a]
        present_W = ~np.isnan(label_W) & ~np.isnan(value_W)
        label_B, value_B = label_W[present_W], value_W[present_W]
        if not len(label_B):
            return ArmMetrics(count=0)
        kind = self._tasks[k].kind
        auc = exact_auc(label_B, value_B) if kind == "binary" else None
        return _arm_metrics(kind, len(label_B), float(losses(kind, label_B, value_B).mean()), auc)


def losses(kind: TaskKind, label_B: NDArray[np.float32], value_B: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log loss of a logit in nats, or the squared error of a value, per row."""
    label_B64, value_B64 = label_B.astype(np.float64), value_B.astype(np.float64)
    if kind == "regression":
        return (value_B64 - label_B64) ** 2
    return np.logaddexp(0, value_B64) - label_B64 * value_B64


def exact_auc(label_B: NDArray[np.float32], score_B: NDArray[np.float32]) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties half (Mann & Whitney 1947).

    None when there are no positives or no negatives.
    """
    _, rank_B, count_U = np.unique(score_B, return_inverse=True, return_counts=True)
    groups = 2, len(count_U)
    histogram_2U = np.zeros(groups, np.int64)
    np.add.at(histogram_2U, ((label_B > 0.5).astype(np.intp), rank_B), 1)
    return histogram_auc(histogram_2U)


def histogram_auc(histogram_2H: NDArray[np.int64]) -> float | None:
    """The AUC of scores known by their bin, from low to high: row 0 counts negatives, row 1 positives."""
    negative_H, positive_H = histogram_2H.astype(np.float64)
    pairs = negative_H.sum() * positive_H.sum()
    if not pairs:
        return None
    below_H = np.cumsum(negative_H) - negative_H / 2
    return float((positive_H * below_H).sum() / pairs)


def _bins(logit_B: NDArray[np.float32]) -> NDArray[np.intp]:
    share_B = (np.clip(logit_B, -_LIMIT, _LIMIT) + _LIMIT) / (2 * _LIMIT)
    bin_B: NDArray[np.intp] = np.minimum(share_B * _BINS, _BINS - 1).astype(np.intp)
    return bin_B


def _arm_metrics(kind: TaskKind, count: int, loss: float, auc: float | None) -> ArmMetrics:
    if kind == "regression":
        return ArmMetrics(count=count, rmse=loss**0.5)
    return ArmMetrics(count=count, auc=auc, log_loss=loss)
