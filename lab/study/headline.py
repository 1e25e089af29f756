"""The findings that study/headline.json holds."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from lab.study.calibration import Calibration, as_json
from lab.study.findings import SERVED, Findings
from lab.study.intervals import Interval
from lab.study.slices import EARLY
from runtime.errors import InvalidInputError
from student.evaluate.arms import CONTROL, STUDENT

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
