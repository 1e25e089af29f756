"""Sums over examples from which the metrics of each slice, task and arm follow; their size does not grow.

Shapes: B rows, S slices, K tasks, A arms, M sums, N bins of probabilities, H bins of logits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.evaluate.metrics import CALIBRATION_BINS, Sums, arm_metrics, histogram_auc, losses
from student.versions.manifest import ArmMetrics

_BINS = 4096
_LIMIT = 10.0
"""Logits are binned over [-10, 10]: 0.005 a bin. Beyond, sigmoid differs from 0 or 1 by less than 5e-5."""


class Tally:
    """Counts, sums and histograms. The order of the rows does not matter but for the last bits of float64 sums."""

    def __init__(self, tasks: Sequence[TaskSpec], slices: int, arms: int) -> None:
        self._tasks = tuple(tasks)
        self._binary_K = np.array([task.kind == "binary" for task in tasks])
        shape_SKA = slices, len(self._tasks), arms
        self._sum_SKAM = np.zeros((*shape_SKA, len(Sums._fields)), np.float64)
        self._bin_3SKAN = np.zeros((3, *shape_SKA, CALIBRATION_BINS), np.float64)
        self._histogram_SKA2H = np.zeros((*shape_SKA, 2, _BINS), np.uint32)

    def update(
        self,
        member_SB: NDArray[np.bool_],
        label_BK: NDArray[np.float32],
        value_BKA: NDArray[np.float32],
        age_B: NDArray[np.float32],
    ) -> None:
        """Add B rows to the slices that they are members of; NaN or infinite is no label and no prediction.

        `age_B`: see `Sums.age`.
        """
        present_BKA = np.isfinite(label_BK)[:, :, None] & np.isfinite(value_BKA)
        label_BKA = np.where(present_BKA, label_BK[:, :, None], 0)
        value_BKA = np.where(present_BKA, value_BKA, 0)
        prediction_BKA = np.where(self._binary_K[:, None], _sigmoid(value_BKA), value_BKA)
        member_SBKA = member_SB[:, :, None, None] & present_BKA
        loss_BKA = self._losses(label_BKA, value_BKA)
        squared_BKA, age_BKA = label_BKA.astype(np.float64) ** 2, age_B[:, None, None]
        terms = present_BKA, label_BKA, squared_BKA, prediction_BKA, loss_BKA, age_BKA
        for m, term_BKA in enumerate(terms):
            self._sum_SKAM[..., m] += np.where(member_SBKA, term_BKA, 0).sum(axis=1, dtype=np.float64)
        self._count_bins(member_SBKA & self._binary_K[:, None], label_BKA, value_BKA, prediction_BKA)

    def count(self, s: int, k: int, a: int) -> int:
        """Rows of slice `s` with a label of task `k` and a prediction of arm `a`."""
        return int(self._sum_SKAM[s, k, a, 0])

    def metrics(self, s: int, k: int, a: int, *, auc: float | None = None, gauc: float | None = None) -> ArmMetrics:
        """Of one slice, task and arm, whose `count` must be above 0; `auc` from the histogram where not given."""
        if auc is None:
            auc = histogram_auc(self._histogram_SKA2H[s, k, a])
        sums = Sums(*self._sum_SKAM[s, k, a].tolist())
        return arm_metrics(self._tasks[k].kind, sums, self._bin_3SKAN[:, s, k, a], auc, gauc)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"sum": self._sum_SKAM, "bin": self._bin_3SKAN, "histogram": self._histogram_SKA2H}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]

    def _losses(self, label_BKA: NDArray[np.float32], value_BKA: NDArray[np.float32]) -> NDArray[np.float64]:
        by_task = [losses(task.kind, label_BKA[:, k], value_BKA[:, k]) for k, task in enumerate(self._tasks)]
        return np.stack(by_task, axis=1)

    def _count_bins(
        self,
        member_SBKA: NDArray[np.bool_],
        label_BKA: NDArray[np.float32],
        value_BKA: NDArray[np.float32],
        prediction_BKA: NDArray[np.float64],
    ) -> None:
        s, b, k, a = np.nonzero(member_SBKA)
        arm = np.ravel_multi_index((s, k, a), self._histogram_SKA2H.shape[:3])
        label, value, prediction = label_BKA[b, k, a], value_BKA[b, k, a], prediction_BKA[b, k, a]
        share = (np.clip(value, -_LIMIT, _LIMIT) + _LIMIT) / (2 * _LIMIT)
        place = (arm * 2 + (label > 0.5)) * _BINS + _bin(share, _BINS)
        np.add.at(self._histogram_SKA2H.reshape(-1), place, 1)  # flat: a tenth of the time of five indices
        place = arm * CALIBRATION_BINS + _bin(prediction, CALIBRATION_BINS)
        for sums_SKAN, term in zip(self._bin_3SKAN, (1, label, prediction), strict=True):
            np.add.at(sums_SKAN.reshape(-1), place, np.asarray(term, np.float64))


def _bin(share: NDArray[np.floating], bins: int) -> NDArray[np.intp]:
    """The bin of each share in [0, 1]; the last one holds 1."""
    place: NDArray[np.intp] = np.minimum(share * bins, bins - 1).astype(np.intp)
    return place


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(logit.astype(np.float64) / 2))
