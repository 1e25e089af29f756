"""How far the baseline's probabilities can be trusted: their calibration, and those of users and items never seen.

Shapes: N examples, B of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lab.study.cell import Predictions
from lab.study.comparison import OfCell
from lab.study.findings import Findings
from lab.study.study_log import StudyLog
from student.evaluate.arms import ARMS, CONTROL, STUDENT
from student.evaluate.metrics import CALIBRATION_BINS, expected_calibration_error

JUDGED = STUDENT, CONTROL
_QUANTILES = {"min": 0.0, "low": 0.01, "median": 0.5, "high": 0.99, "max": 1.0}

Range = Mapping[str, float]
"""Smallest score, 1 %, median, 99 % and largest one: ``min``, ``low``, ``median``, ``high``, ``max``."""


class Calibration(NamedTuple):
    """Of one binary task, row by row or when it was served.

    `ece`: of each arm the expected calibration error in ten bins of equal width, the mean over the seeds.
    `unseen_rows`: how many rows have a user and an item that both had never come before. `unseen`: of each arm the
    range of its probabilities of these rows, over all seeds; empty where there is no such row.
    """

    task: str
    served: bool
    unseen_rows: int
    ece: Mapping[str, float]
    unseen: Mapping[str, Range]


def calibrations(findings: Findings, log: StudyLog, of_cell: OfCell) -> list[Calibration]:
    """Of every binary task, row by row and served, over all that the baseline has learnt of `log`."""
    base = findings.grid.baseline
    seeds = [of_cell(base, seed) for seed in range(1, findings.seeds(base) + 1)]
    kept = [predictions for predictions in seeds if predictions is not None]
    names = [task.name for task in findings.tasks]
    return [
        _calibration(task, [_task(each, names.index(task), served=served) for each in kept], log, served=served)
        for task in findings.binary
        for served in (False, True)
        if kept
    ]


def as_json(found: Sequence[Calibration]) -> dict[str, Any]:
    """By task and way: ``row_by_row``, ``served``."""
    told: dict[str, Any] = {}
    for each in found:
        unseen = {"rows": each.unseen_rows, **{arm: dict(of) for arm, of in each.unseen.items()}}
        told.setdefault(each.task, {})[_WAYS[each.served]] = {"ece": dict(each.ece), "unseen": unseen}
    return told


_WAYS = {False: "row_by_row", True: "served"}

_Task = tuple[NDArray[np.float32], Mapping[str, NDArray[np.float64]]]
"""Labels [N], and of each arm probabilities [N]."""


def _task(kept: Predictions, k: int, *, served: bool) -> _Task:
    value_NA = (kept.served_NKA if served else kept.seen_NKA)[:, k].astype(np.float64)
    return kept.label_NK[:, k], {arm: expit(value_NA[:, ARMS.index(arm)]) for arm in JUDGED}


def _calibration(task: str, seeds: list[_Task], log: StudyLog, *, served: bool) -> Calibration:
    weight_N, unseen_N = log.weights, _unseen(log)
    ece = {arm: float(np.mean([_ece(label_N, of[arm], weight_N) for label_N, of in seeds])) for arm in JUDGED}
    unseen = {arm: np.concatenate([of[arm][unseen_N[: len(of[arm])]] for _, of in seeds]) for arm in JUDGED}
    ranges = {arm: _range(score_B) for arm, score_B in unseen.items() if len(score_B)}
    return Calibration(task, served, int(unseen_N.sum()), ece, ranges)


def _ece(label_N: NDArray[np.float32], score_N: NDArray[np.float64], weight_N: NDArray[np.float32]) -> float:
    """`weight_N`: of the whole log, of which the labels may be the beginning."""
    known_N = np.isfinite(label_N)
    label_B, score_B = label_N[known_N].astype(np.float64), score_N[known_N]
    weight_B = weight_N[: len(label_N)][known_N].astype(np.float64)
    bin_B = np.minimum((score_B * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    sums = (weight_B, weight_B * label_B, weight_B * score_B)
    return expected_calibration_error(np.stack([np.bincount(bin_B, of, CALIBRATION_BINS) for of in sums]))


def _range(score_B: NDArray[np.float64]) -> Range:
    return {name: float(np.quantile(score_B, share)) for name, share in _QUANTILES.items()}


def _unseen(log: StudyLog) -> NDArray[np.bool_]:
    """Which examples have a user and an item that no example before them had [N]."""
    users, items, unseen = set(), set(), []
    for example in log.examples:
        unseen.append(example.user_id not in users and example.item_id not in items)
        users.add(example.user_id)
        items.add(example.item_id)
    return np.array(unseen, np.bool_)
