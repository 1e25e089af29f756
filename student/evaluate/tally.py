"""Sums over examples from which the metrics of each slice, task and arm follow; their size does not grow.

Shapes: B rows, S slices, K tasks, A arms, M sums, N bins of probabilities, H bins of logits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.compiled import compiled
from stream.tasks import TaskSpec
from student.evaluate.metrics import CALIBRATION_BINS, Sums, arm_metrics, histogram_auc, losses
from student.versions.manifest import ArmMetrics

_BINS = 4096
_LIMIT = 10.0
"""Logits are binned over [-10, 10]: 0.005 a bin. Beyond, sigmoid differs from 0 or 1 by less than 5e-5."""


class _Sums(NamedTuple):
    """The whole state."""

    sum_SKAM: NDArray[np.float64]
    bin_3SKAN: NDArray[np.float64]
    histogram_SKA2H: NDArray[np.uint32]


class Tally:
    """Counts, sums and histograms. The order of the rows does not matter but for the last bits of float64 sums."""

    def __init__(self, tasks: Sequence[TaskSpec], slices: int, arms: int) -> None:
        self._tasks = tuple(tasks)
        self._binary_K = np.array([task.kind == "binary" for task in tasks])
        shape_SKA = slices, len(self._tasks), arms
        self._sums = _Sums(
            np.zeros((*shape_SKA, len(Sums._fields)), np.float64),
            np.zeros((3, *shape_SKA, CALIBRATION_BINS), np.float64),
            np.zeros((*shape_SKA, 2, _BINS), np.uint32),
        )
        no_BK, no_B = np.zeros((0, len(self._tasks)), np.float32), np.zeros(0, np.float32)
        no_BKA = np.repeat(no_BK[:, :, None], arms, axis=2)
        self.update(np.zeros((slices, 0), np.bool_), no_BK, no_BKA, no_B, no_B)  # compiles it

    def update(
        self,
        member_SB: NDArray[np.bool_],
        label_BK: NDArray[np.float32],
        value_BKA: NDArray[np.float32],
        age_B: NDArray[np.float32],
        weight_B: NDArray[np.float32],
    ) -> None:
        """Add B rows to the slices that they are members of; NaN or infinite is no label and no prediction.

        `age_B`: see `Sums.age`. `weight_B`: as how many rows each counts, a whole number.
        """
        value_BKA64 = value_BKA.astype(np.float64, order="C")
        loss_BKA = self._losses(label_BK, value_BKA64)
        _add(member_SB, label_BK, value_BKA64, loss_BKA, age_B, weight_B, self._binary_K, self._sums)

    def count(self, s: int, k: int, a: int) -> int:
        """Rows of slice `s`, each as often as it counts, with a label of task `k` and a prediction of arm `a`."""
        return int(self._sums.sum_SKAM[s, k, a, 0])

    def metrics(self, s: int, k: int, a: int, *, auc: float | None = None, gauc: float | None = None) -> ArmMetrics:
        """Of one slice, task and arm, whose `count` must be above 0; `auc` from the histogram where not given."""
        if auc is None:
            auc = histogram_auc(self._sums.histogram_SKA2H[s, k, a])
        sums = Sums(*self._sums.sum_SKAM[s, k, a].tolist())
        return arm_metrics(self._tasks[k].kind, sums, self._sums.bin_3SKAN[:, s, k, a], auc, gauc)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return dict(zip(("sum", "bin", "histogram"), self._sums, strict=True))

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned."""
        for name, own in self.tensors().items():
            own[...] = tensors[name]

    def _losses(self, label_BK: NDArray[np.float32], value_BKA: NDArray[np.float64]) -> NDArray[np.float64]:
        label_BK1 = label_BK[:, :, None]
        with np.errstate(over="ignore", invalid="ignore"):  # of what is no label or no prediction
            by_task = [losses(task.kind, label_BK1[:, k], value_BKA[:, k]) for k, task in enumerate(self._tasks)]
        return np.stack(by_task, axis=1)


@compiled
def _add(  # noqa: PLR0913, PLR0917 - compiled code is called by place
    member_SB: NDArray[np.bool_],
    label_BK: NDArray[np.float32],
    value_BKA: NDArray[np.float64],
    loss_BKA: NDArray[np.float64],
    age_B: NDArray[np.float32],
    weight_B: NDArray[np.float32],
    binary_K: NDArray[np.bool_],
    sums: _Sums,
) -> None:
    """Add B rows, of which a value or label that is not finite counts in nothing."""
    slices, tasks, arms, _ = sums.sum_SKAM.shape
    for b in range(len(label_BK)):
        weight = int(weight_B[b])
        for k in range(tasks):
            for a in range(arms):
                label, value = float(label_BK[b, k]), value_BKA[b, k, a]
                if not (np.isfinite(label) and np.isfinite(value)):
                    continue
                # The logistic function, without overflow.
                prediction = 0.5 * (1 + np.tanh(value / 2)) if binary_K[k] else value
                share = (min(max(value, -_LIMIT), _LIMIT) + _LIMIT) / (2 * _LIMIT)
                for s in range(slices):
                    if not member_SB[s, b]:
                        continue
                    sum_M = sums.sum_SKAM[s, k, a]
                    sum_M[0] += weight
                    sum_M[1] += weight * label
                    sum_M[2] += weight * (label * label)
                    sum_M[3] += weight * prediction
                    sum_M[4] += weight * loss_BKA[b, k, a]
                    sum_M[5] += weight * age_B[b]
                    if binary_K[k]:
                        sums.histogram_SKA2H[s, k, a, int(label > 0.5), min(int(share * _BINS), _BINS - 1)] += weight
                        n = min(int(prediction * CALIBRATION_BINS), CALIBRATION_BINS - 1)
                        sums.bin_3SKAN[0, s, k, a, n] += weight
                        sums.bin_3SKAN[1, s, k, a, n] += weight * label
                        sums.bin_3SKAN[2, s, k, a, n] += weight * prediction
