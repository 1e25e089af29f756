"""Exact metrics of stored predictions, over parts of a log. Shapes: N examples, K tasks, A arms."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.evaluate.metrics import exact_auc, losses

Scores = dict[str, dict[str, float]]
"""Task -> arm -> AUC of a binary task, RMSE of a regression; what is undefined is left out."""


NEW_ITEMS, NEW_USERS = "new items", "new users"
"""The examples of a slice whose item, or whose user, had few examples before."""


EARLY_EXAMPLES = 500
"""In the first examples a wrong teacher harms most: the student has few labels that contradict it."""
EARLY = f"first {EARLY_EXAMPLES}"
"""The slice of these examples."""


def window_names(windows: Sequence[int], count: int) -> list[str]:
    """The names of the windows of a log of so many examples: ``0-500``; the last one, ``500-end``, holds its tail."""
    inner = [f"{low}-{high}" for low, high in pairwise(windows) if low < count]
    return [*inner, f"{windows[-1]}-end"] if windows[-1] < count else inner


def slices_of(new: Mapping[str, NDArray[np.bool_]], windows: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """The members of each slice: all, the first 500, windows; each with new ids, too.

    `new`: by name the examples with new ids [N].
    """
    count = len(next(iter(new.values())))
    row_N = np.arange(count)
    whole = {"all": row_N >= 0}
    if count >= EARLY_EXAMPLES:
        whole[EARLY] = row_N < EARLY_EXAMPLES
    bounds = [*windows, count] if windows[-1] < count else windows
    for name, (low, high) in zip(window_names(windows, count), pairwise(bounds), strict=False):
        whole[name] = (row_N >= low) & (row_N < high)
    return whole | {
        f"{name}, {part}": member_N & new_N for part, new_N in new.items() for name, member_N in whole.items()
    }


def scores_of(
    tasks: Sequence[TaskSpec],
    arms: Sequence[str],
    label_NK: NDArray[np.float32],
    value_NKA: NDArray[np.float32],
    weight_N: NDArray[np.float32] | None = None,
) -> Scores:
    """One score per task and arm, over the rows that have label and value; `weight_N`: as how many rows each counts."""
    weight_N = np.ones(len(label_NK), np.float32) if weight_N is None else weight_N
    scores: Scores = {task.name: {} for task in tasks}
    for k, task in enumerate(tasks):
        for a, arm in enumerate(arms):
            value = _score(task, label_NK[:, k], value_NKA[:, k, a], weight_N)
            if value is not None:
                scores[task.name][arm] = value
    return scores


def _score(
    task: TaskSpec, label_N: NDArray[np.float32], value_N: NDArray[np.float32], weight_N: NDArray[np.float32]
) -> float | None:
    present_N = ~np.isnan(label_N) & ~np.isnan(value_N)
    label_B, value_B, weight_B = label_N[present_N], value_N[present_N], weight_N[present_N]
    if task.kind == "binary":
        return exact_auc(label_B, value_B, weight_B)
    if not len(label_B):
        return None
    return float(np.average(losses("regression", label_B, value_B), weights=weight_B) ** 0.5)


def of_slices(
    slices: Mapping[str, NDArray[np.bool_]],
    tasks: Sequence[TaskSpec],
    arms: Sequence[str],
    label_NK: NDArray[np.float32],
    value_NKA: NDArray[np.float32],
    weight_N: NDArray[np.float32] | None = None,
) -> dict[str, Scores]:
    """The scores of every slice."""
    weight_N = np.ones(len(label_NK), np.float32) if weight_N is None else weight_N
    return {name: scores_of(tasks, arms, label_NK[m], value_NKA[m], weight_N[m]) for name, m in slices.items()}
