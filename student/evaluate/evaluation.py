"""Progressive validation: every arm is judged on predictions made before their example was learnt.

Blum, Kalai & Langford 1999; Dawid 1984 ("prequential"). The metrics: student/evaluate/metrics.py, docs/metrics.md.
Shapes: B rows, S slices with sums (whole, new items, new users), K tasks, A arms, W rows of the recent window, M sums,
N bins of probabilities, H bins of logits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.compute import compiled
from stream.tasks import TaskSpec
from student.evaluate.arms import ARMS
from student.evaluate.metrics import (
    CALIBRATION_BINS,
    GroupedAuc,
    Sums,
    arm_metrics,
    exact_auc,
    grouped_auc,
    histogram_auc,
    losses,
)
from student.versions.manifest import ArmMetrics, Metrics

RECENT_EXAMPLES = 2000
"""Rows of the recent window, and of the blocks within which whole-stream GAUC compares a user's examples."""

SLICES = ("whole", "recent", "new_items", "new_users")

_SUMMED = ("whole", "new_items", "new_users")
"""The slices whose sums grow with every example, in the order of axis S."""


_ABSENT = {"weight": 1, "drawn": 0}
"""What an earlier release did not save, and what it was: no row had a weight, and none was drawn."""


_BINS = 4096
_LIMIT = 10.0
"""Logits are binned over [-10, 10]: 0.005 a bin. Beyond, sigmoid differs from 0 or 1 by less than 5e-5."""


class _Sums(NamedTuple):
    """The whole state."""

    sum_SKAM: NDArray[np.float64]
    bin_3SKAN: NDArray[np.float64]
    histogram_SKA2H: NDArray[np.uint32]


class Tally:
    """Counts, sums and histograms, from which metrics follow; their size does not grow.

    The order of the rows does not matter but for the last bits of float64 sums.
    """

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


class ProgressiveEvaluation:
    """Metrics per slice, task and arm; the size of its state is fixed.

    From the first drawn negative on (`Example.sampled`) every AUC is one `against_drawn`, and there is no other.
    """

    def __init__(self, tasks: Sequence[TaskSpec], arms: Sequence[str] = ARMS) -> None:
        self._tasks, self._arms = tuple(tasks), tuple(arms)
        shape_SKA = len(_SUMMED), len(self._tasks), len(self._arms)
        self._tally = Tally(tasks, len(_SUMMED), len(self._arms))
        self._gauc_SKA2 = np.zeros((*shape_SKA, len(GroupedAuc._fields)), np.float64)
        self._label_WK = np.full((RECENT_EXAMPLES, len(self._tasks)), np.nan, np.float32)
        self._value_WKA = np.full((RECENT_EXAMPLES, *shape_SKA[1:]), np.nan, np.float32)
        self._age_W = np.full(RECENT_EXAMPLES, np.nan, np.float32)
        self._weight_W = np.ones(RECENT_EXAMPLES, np.float32)
        self._user_W = np.zeros(RECENT_EXAMPLES, np.uint64)
        self._member_SW = np.zeros((len(_SUMMED), RECENT_EXAMPLES), np.bool_)
        self._next = np.zeros(1, np.int64)
        self._drawn = np.zeros(1, np.int64)

    def update(
        self,
        label_BK: NDArray[np.float32],
        value_BKA: NDArray[np.float32],
        user_B: NDArray[np.uint64],
        new_2B: NDArray[np.bool_],
        age_B: NDArray[np.float32] | None = None,
        *,
        weight_B: NDArray[np.float32],
    ) -> None:
        """Count B predictions: logits of binary tasks, values of regressions. A NaN label or value is not counted.

        `user_B`: the hashes of the users. `new_2B`: whether items and users are new. `age_B`: how many examples lie
        between the version that predicted a row and the row; None where no version did. `weight_B`: as how many rows
        each counts, a whole number.
        """
        if age_B is None:
            age_B = np.full(len(label_BK), np.nan, np.float32)
        member_SB = np.concatenate([np.ones((1, len(label_BK)), np.bool_), new_2B])
        self._tally.update(member_SB, label_BK, value_BKA, age_B, weight_B)
        self._remember(user_B, member_SB, label_BK, value_BKA, age_B, weight_B)

    def meet_drawn(self) -> None:
        """Among the examples counted there are, or will be, drawn negatives."""
        self._drawn[0] = 1

    def whole(self) -> Metrics:
        """Over all examples; AUC from histograms, to 1e-3; GAUC within blocks of `RECENT_EXAMPLES`."""
        return self._of_slice(0)

    def recent(self) -> Metrics:
        """Over the last `RECENT_EXAMPLES` examples, exact."""
        window = Tally(self._tasks, 1, len(self._arms))
        everything = self._label_WK, self._value_WKA, self._age_W, self._weight_W
        window.update(np.ones((1, RECENT_EXAMPLES), np.bool_), *everything)
        full_W = np.ones(RECENT_EXAMPLES, np.bool_)

        def metrics(k: int, a: int) -> ArmMetrics:
            auc = exact_auc(*self._rows(k, a, full_W)[1:]) if self._tasks[k].kind == "binary" else None
            return window.metrics(0, k, a, auc=auc, gauc=self._grouped(k, a, full_W).mean())

        return self._table(lambda k, a: window.count(0, k, a), metrics)

    def slices(self) -> dict[str, Metrics]:
        """Every slice of `SLICES`."""
        summed = {name: self._of_slice(s) for s, name in enumerate(_SUMMED)}
        return {name: self.recent() if name == "recent" else summed[name] for name in SLICES}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {f"tally.{name}": tensor for name, tensor in self._tally.tensors().items()} | {
            "gauc": self._gauc_SKA2,
            "label": self._label_WK,
            "value": self._value_WKA,
            "age": self._age_W,
            "weight": self._weight_W,
            "user": self._user_W,
            "member": self._member_SW,
            "next": self._next,
            "drawn": self._drawn,
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one that `tensors` returned, in this release or an earlier one."""
        for name, own in self.tensors().items():
            own[...] = tensors[name] if name in tensors or name not in _ABSENT else _ABSENT[name]

    def _remember(
        self,
        user_B: NDArray[np.uint64],
        member_SB: NDArray[np.bool_],
        label_BK: NDArray[np.float32],
        value_BKA: NDArray[np.float32],
        age_B: NDArray[np.float32],
        weight_B: NDArray[np.float32],
    ) -> None:
        """Put the rows into the window, block by block; a block that is full is closed."""
        first = 0
        while first < len(user_B):
            place = int(self._next[0]) % RECENT_EXAMPLES
            last = min(len(user_B), first + RECENT_EXAMPLES - place)
            block, rows = slice(place, place + last - first), slice(first, last)
            self._user_W[block], self._member_SW[:, block] = user_B[rows], member_SB[:, rows]
            self._label_WK[block], self._value_WKA[block] = label_BK[rows], value_BKA[rows]
            self._age_W[block], self._weight_W[block] = age_B[rows], weight_B[rows]
            self._next += last - first
            first = last
            if self._next[0] % RECENT_EXAMPLES == 0:
                self._close_block()

    def _close_block(self) -> None:
        for s, k, a in self._binary_places():
            self._gauc_SKA2[s, k, a] += self._grouped(k, a, self._member_SW[s])

    def _binary_places(self) -> Iterator[tuple[int, int, int]]:
        binary = [k for k, task in enumerate(self._tasks) if task.kind == "binary"]
        return ((s, k, a) for s in range(len(_SUMMED)) for k in binary for a in range(len(self._arms)))

    def _of_slice(self, s: int) -> Metrics:
        open_W = self._member_SW[s] & (np.arange(RECENT_EXAMPLES) < self._next[0] % RECENT_EXAMPLES)

        def metrics(k: int, a: int) -> ArmMetrics:
            open_block = self._grouped(k, a, open_W)
            gauc = GroupedAuc(*(self._gauc_SKA2[s, k, a] + open_block).tolist()).mean()
            return self._tally.metrics(s, k, a, gauc=gauc)

        return self._table(lambda k, a: self._tally.count(s, k, a), metrics)

    def _grouped(self, k: int, a: int, member_W: NDArray[np.bool_]) -> GroupedAuc:
        if self._tasks[k].kind == "regression":
            return GroupedAuc()
        return grouped_auc(*self._rows(k, a, member_W))

    def _rows(
        self, k: int, a: int, member_W: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Users, labels, values and weights of the window's members that have both a label and a value."""
        label_W, value_W = self._label_WK[:, k], self._value_WKA[:, k, a]
        present_W = member_W & np.isfinite(label_W) & np.isfinite(value_W)
        return self._user_W[present_W], label_W[present_W], value_W[present_W], self._weight_W[present_W]

    def _table(self, count: Callable[[int, int], int], metrics: Callable[[int, int], ArmMetrics]) -> Metrics:
        def named(k: int, a: int) -> ArmMetrics:
            return metrics(k, a).against_drawn() if self._drawn[0] else metrics(k, a)

        return {
            task.name: {arm: named(k, a) for a, arm in enumerate(self._arms) if count(k, a)}
            for k, task in enumerate(self._tasks)
        }
