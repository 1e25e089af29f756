"""The findings that study/headline.json holds, and how far the baseline's probabilities can be trusted.

Shapes: N examples, B of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lab.study.findings.comparison import OfCell
from lab.study.findings.findings import SERVED, Findings, Interval
from lab.study.learners.cell import Predictions
from lab.study.log.study_log import EARLY, StudyLog
from runtime.errors import InvalidInputError
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


_Json = dict[str, Any]


def headline(findings: Findings, pair: str, calibrated: Sequence[Calibration]) -> _Json:
    """The baseline against its control and all other series; InvalidInputError when it has no result."""
    base = findings.grid.baseline
    results = [result for result in findings.results if result.variant == base]
    if not results:
        raise InvalidInputError(f"the grid has no result of its baseline {base}")
    learners = [series for series in findings.series() if series.arm in {STUDENT, CONTROL}]
    return {
        "pair": pair,
        "events": results[0].examples,
        "seeds": min(findings.seeds(series.variant) for series in learners),
        "steps_equal": findings.steps_equal(),
        "bootstrap_steps": results[0].bootstrap_steps,
        **_part(findings, "all"),
        "served": _means(findings, f"{SERVED}all", findings.binary),
        "served_rmse": _means(findings, f"{SERVED}all", findings.regressions),
        "windows": [
            {"from": low, "to": high, **_part(findings, name)}
            for name, (low, high) in zip(findings.parts(), pairwise(_edges(findings)), strict=False)
        ],
        "thin": [_thin(findings.at(share)) for share in findings.shares()],
        "harm": _harms(findings),
        "calibration": as_json(calibrated),
    }


def harm_of_permuted(findings: Findings, task: str) -> tuple[float, float] | None:
    """Control minus the student of a permuted teacher: in the worst window and over all; above 0 is harm.

    The first 500 examples count as a window, too.
    """
    gains = [findings.gain(findings.permuted, part, task) for part in (EARLY, *findings.parts(), "all")]
    means = [-gain.mean for gain in gains if gain]
    return (max(means[:-1], default=means[-1]), means[-1]) if means else None


def _edges(findings: Findings) -> list[int]:
    windows, examples = findings.grid.windows, findings.examples()
    return [*windows, examples] if windows[-1] < examples else windows


def _part(findings: Findings, part: str) -> _Json:
    served = f"{SERVED}{part}"
    return {
        "auc": _means(findings, part, findings.binary),
        "gain": _gains(findings, part, findings.binary) | {"served": _gains(findings, served, findings.binary)},
        "transferability": {task: findings.transferability(part, task) for task in findings.binary},
        "rmse": _means(findings, part, findings.regressions),
        "rmse_saved": _gains(findings, part, findings.regressions)
        | {"served": _gains(findings, served, findings.regressions)},
    }


def _thin(findings: Findings) -> _Json:
    """Of the first binary task, or of the first regression where there is none."""
    task = next(iter([*findings.binary, *findings.regressions]))
    counts = [result.examples for result in findings.results if result.variant == findings.grid.baseline]
    return {
        "share": findings.share,
        "task": task,
        "draws": len(counts),
        "examples": sum(counts) / max(1, len(counts)),
        **_scores(findings, "all", task),
        "served": _scores(findings, f"{SERVED}all", task),
    }


def _scores(findings: Findings, part: str, task: str) -> _Json:
    gain = findings.gain(findings.grid.baseline, part, task)
    return {**_means(findings, part, [task])[task], "gain": _interval(gain) if gain else None}


def _harms(findings: Findings) -> _Json:
    """Of a permuted teacher: the worst of all binary tasks, and each of them."""
    found = {task: harm_of_permuted(findings, task) for task in findings.binary}
    harms = {task: {"worst_window": harm[0], "whole": harm[1]} for task, harm in found.items() if harm}
    if not harms:
        return {}
    worst = {key: max(harm[key] for harm in harms.values()) for key in ("worst_window", "whole")}
    return {"permuted": {**worst, "tasks": harms}}


def _gains(findings: Findings, part: str, tasks: Iterable[str]) -> _Json:
    gains = {task: findings.gain(findings.grid.baseline, part, task) for task in tasks}
    return {task: _interval(gain) for task, gain in gains.items() if gain}


def _interval(gain: Interval) -> _Json:
    known = gain.is_known
    return {"mean": gain.mean, "low": gain.low if known else None, "high": gain.high if known else None}


def _means(findings: Findings, part: str, tasks: Iterable[str]) -> _Json:
    return {task: _mean_of_each(findings, part, task) for task in tasks}


def _mean_of_each(findings: Findings, part: str, task: str) -> dict[str, float | None]:
    means = {s.name: findings.mean(s.variant, part, task, s.arm) for s in findings.series()}
    return {name.replace(" ", "_"): mean and mean.mean for name, mean in means.items()}
