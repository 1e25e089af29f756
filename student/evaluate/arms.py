"""The arms of the experiment, which are judged on the same examples, and the simplest of them.

Shapes: B rows, K tasks, N items held.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskSpec

STUDENT = "student"
"""Learns from labels and from the teacher; it is served."""
CONTROL = "control"
"""The same student without distillation."""
TEACHER = "teacher"
"""The teacher's cached logit as it is."""
ITEM_MEAN = "item_mean"
"""The mean label of the item so far."""

ARMS = (STUDENT, CONTROL, TEACHER, ITEM_MEAN)
"""Those that a learner predicts with row by row, in the order of axis A and of every table and picture."""

SERVED_STUDENT = "served_student"
"""What serving would have said: of the versions whose examples had all closed when the impression came, the newest."""
SERVED_CONTROL = "served_control"
"""What the control in the same version says."""

SERVED_ARMS = (SERVED_STUDENT, SERVED_CONTROL)
"""Those of published versions, in the order of axis A."""

ALL_ARMS = (*ARMS, *SERVED_ARMS)
"""The order of tables."""


_CAPACITY = 65_536
"""Items held; beyond, the one that was shown longest ago is forgotten."""

_SHRINKAGE = 5.0
"""The mean over all items counts as this many labels of each item."""


class ItemMean:
    """The arm `ITEM_MEAN`: running means of the labels per item, shrunk towards the mean over all items."""

    def __init__(self, tasks: Sequence[TaskSpec], capacity: int = _CAPACITY) -> None:
        self._binary_K = np.array([task.kind == "binary" for task in tasks])
        self._capacity = capacity
        self._items: OrderedDict[int, NDArray[np.float64]] = OrderedDict()
        self._total_2K = np.zeros((2, len(tasks)))

    def __len__(self) -> int:
        return len(self._items)

    def score(self, item_B: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Logits (binary) or values (regression) [B, K] of items by their hashes, from the labels before these rows."""
        nothing_2K = np.zeros_like(self._total_2K)
        known_B2K = np.stack([self._items.get(item, nothing_2K) for item in item_B.tolist()])
        sum_BK, count_BK = known_B2K[:, 0], known_B2K[:, 1]
        mean_BK = (sum_BK + _SHRINKAGE * self._overall_mean()) / (count_BK + _SHRINKAGE)
        safe_BK = np.clip(mean_BK, 1e-6, 1 - 1e-6)
        return np.where(self._binary_K, np.log(safe_BK / (1 - safe_BK)), mean_BK).astype(np.float32)

    def update(self, item_B: NDArray[np.uint64], label_BK: NDArray[np.float32], weight_B: NDArray[np.float32]) -> None:
        """Add the rows' labels; a NaN is no label. `weight_B`: as how many rows each counts."""
        present_BK = ~np.isnan(label_BK)
        added_B2K = np.stack([np.where(present_BK, label_BK, 0), present_BK], axis=1).astype(np.float64)
        added_B2K *= weight_B[:, None, None]
        for key, added_2K in zip(item_B.tolist(), added_B2K, strict=True):
            known_2K = self._items.get(key)
            self._items[key] = added_2K if known_2K is None else known_2K + added_2K
            self._items.move_to_end(key)
            self._total_2K += added_2K
        while len(self._items) > self._capacity:
            self._items.popitem(last=False)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state; items from the one shown longest ago."""
        values_N2K = np.array(list(self._items.values())).reshape(-1, *self._total_2K.shape)
        return {"key": np.array(list(self._items), np.uint64), "value": values_N2K, "total": self._total_2K}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned."""
        values = (value.copy() for value in tensors["value"])
        self._items = OrderedDict(zip(tensors["key"].tolist(), values, strict=True))
        self._total_2K = tensors["total"].copy()

    def _overall_mean(self) -> NDArray[np.float64]:
        sum_K, count_K = self._total_2K
        plain_K: NDArray[np.float64] = sum_K / np.maximum(count_K, 1)
        return np.where(self._binary_K, (sum_K + 1) / (count_K + 2), plain_K)
