"""Exact metrics of stored predictions, over parts of a log. Shapes: N examples, K tasks, A arms."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.evaluate.metrics import exact_auc, losses

Scores = dict[str, dict[str, float]]
"""Task -> arm -> AUC of a binary task, RMSE of a regression; what is undefined is left out."""


def slices_of(new_N: NDArray[np.bool_], windows: Sequence[int], traffic: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """The members of each slice: all, the first n of each traffic size, windows; each also with new items alone."""
    count_N = np.arange(len(new_N))
    whole = {"all": np.ones(len(new_N), np.bool_)}
    whole |= {f"first {size}": count_N < size for size in traffic if size <= len(new_N)}
    whole |= {f"{low}-{high}": (count_N >= low) & (count_N < high) for low, high in pairwise(windows)}
    return whole | {f"{name}, new items": member_N & new_N for name, member_N in whole.items()}


def scores_of(
    tasks: Sequence[TaskSpec], arms: Sequence[str], label_NK: NDArray[np.float32], value_NKA: NDArray[np.float32]
) -> Scores:
    """One score per task and arm, over the rows that have label and value."""
    scores: Scores = {task.name: {} for task in tasks}
    for k, task in enumerate(tasks):
        for a, arm in enumerate(arms):
            value = _score(task, label_NK[:, k], value_NKA[:, k, a])
            if value is not None:
                scores[task.name][arm] = value
    return scores


def _score(task: TaskSpec, label_N: NDArray[np.float32], value_N: NDArray[np.float32]) -> float | None:
    present_N = ~np.isnan(label_N) & ~np.isnan(value_N)
    label_B, value_B = label_N[present_N], value_N[present_N]
    if task.kind == "binary":
        return exact_auc(label_B, value_B)
    return float(losses("regression", label_B, value_B).mean() ** 0.5) if len(label_B) else None


def of_slices(
    slices: Mapping[str, NDArray[np.bool_]],
    tasks: Sequence[TaskSpec],
    arms: Sequence[str],
    label_NK: NDArray[np.float32],
    value_NKA: NDArray[np.float32],
) -> dict[str, Scores]:
    """The scores of every slice."""
    return {name: scores_of(tasks, arms, label_NK[m], value_NKA[m]) for name, m in slices.items()}
