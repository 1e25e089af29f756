"""The report's pictures, as PNG files."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.dev.client import Answer, Swap
from lab.dev.watch import HitRate
from lab.page import COLOURS, INK, save, style
from student.evaluate.arms import ALL_ARMS, CONTROL, ITEM_MEAN, SERVED_CONTROL, SERVED_STUDENT, STUDENT, TEACHER
from student.evaluate.evaluation import RECENT_EXAMPLES
from student.evaluate.history import Point

ARM_NAMES = {
    STUDENT: "student",
    CONTROL: "control",
    TEACHER: "teacher as it is",
    ITEM_MEAN: "item mean",
    SERVED_STUDENT: "served student",
    SERVED_CONTROL: "served control",
}
_SERVED = {"linewidth": 1.2, "linestyle": (0, (5, 2))}
_LINES: dict[str, dict[str, Any]] = {
    STUDENT: {"linewidth": 2.2, "color": COLOURS[STUDENT]},
    CONTROL: {"linewidth": 2.0, "color": COLOURS[CONTROL]},
    TEACHER: {"linewidth": 1.4, "linestyle": "--", "color": COLOURS[TEACHER]},
    ITEM_MEAN: {"linewidth": 1.4, "linestyle": ":", "color": COLOURS[ITEM_MEAN]},
    SERVED_STUDENT: {**_SERVED, "color": COLOURS[STUDENT]},
    SERVED_CONTROL: {**_SERVED, "color": COLOURS[CONTROL]},
}
_WINDOW_REQUESTS = 100
"""Requests in the running p50 and p99 of the latency plot."""


class Curve(NamedTuple):
    """The AUC of one arm; `auc` in [0, 1], one value for each number of examples."""

    examples: list[int]
    auc: list[float]


def curve(points: Sequence[Point], task: str, arm: str, slice_name: str = "whole") -> Curve:
    """The AUC of `arm` on `task` where it is defined, over one slice of the examples."""
    metrics = [(p.examples, p.slices.get(slice_name, {}).get(task, {}).get(arm)) for p in points]
    defined = [(examples, m.auc) for examples, m in metrics if m is not None and m.auc is not None]
    return Curve([examples for examples, _ in defined], [auc for _, auc in defined])


def plot_auc(path: Path, task: str, points: Sequence[Point], swaps_at_examples: Sequence[int]) -> None:
    """Progressive AUC of every arm on `task` against examples: over all so far, and over the recent window."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels = [(left, "whole", "all examples so far"), (right, "recent", f"the last {RECENT_EXAMPLES:,} examples")]
    for axes, slice_name, title in panels:
        for arm, name in ARM_NAMES.items():
            examples, auc = curve(points, task, arm, slice_name)
            if examples:
                axes.plot(examples, auc, label=name, **_LINES[arm])
        _style(axes, f"{task}: {title}", "examples learnt")
        _limit_auc(axes, points, task)
        _mark_swaps(axes, swaps_at_examples)
    left.set_ylabel("progressive AUC")
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    save(figure, path)


def plot_latency(path: Path, answers: Sequence[Answer], swaps: Sequence[Swap]) -> None:
    """Every answered request's latency over time, with running percentiles; logarithmic."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    answered = [a for a in answers if a.fault is None]
    if answered:
        seconds, latency_ms = [a.at_seconds for a in answered], [a.latency_ms for a in answered]
        axes.scatter(seconds, latency_ms, s=5, color=COLOURS[STUDENT], alpha=0.25, label="one request")
        window = pd.Series(latency_ms).rolling(_WINDOW_REQUESTS, min_periods=1)
        for share, line in ((0.5, "-"), (0.99, "--")):
            label = f"p{share * 100:.0f} of the last {_WINDOW_REQUESTS}"
            axes.plot(seconds, window.quantile(share, "higher"), line, color=INK, linewidth=1.2, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        _legend_above(axes)
    _style(axes, "Latency of POST /score as the client saw it", "seconds since the stages started")
    axes.set_ylabel("milliseconds")
    _mark_swaps(axes, [s.at_seconds for s in swaps])
    save(figure, path)


def plot_hit_rate(path: Path, hits: Sequence[HitRate]) -> None:
    """Share of learnt examples whose teacher logit lay in the cache: over all so far, and between two readings."""
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    axes = figure.subplots()
    moved = [(before, after) for before, after in itertools.pairwise(hits) if after.asked > before.asked]
    if moved:
        seconds = [after.at_seconds for _, after in moved]
        recent = [100 * (after.found - before.found) / (after.asked - before.asked) for before, after in moved]
        axes.plot(seconds, recent, color=COLOURS[ITEM_MEAN], linewidth=1.0, label="since the look before")
        so_far = [100 * after.found / after.asked for _, after in moved]
        axes.plot(seconds, so_far, color=COLOURS[TEACHER], linewidth=2.0, label="so far")
        _legend_above(axes)
    axes.set_ylim(0, 104)
    _style(axes, "Teacher logits found in the cache", "seconds since the stages started")
    axes.set_ylabel("% of examples")
    save(figure, path)


def _style(axes: Axes, title: str, x_label: str) -> None:
    style(axes, title, x_label)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _limit_auc(axes: Axes, points: Sequence[Point], task: str) -> None:
    """Leave the noise of the first examples out of the picture's range."""
    settled = points[min(4, len(points) // 4) :]
    curves = [curve(settled, task, arm, slice_name).auc for arm in ALL_ARMS for slice_name in ("whole", "recent")]
    values = [auc for auc_of_arm in curves for auc in auc_of_arm]
    if values:
        axes.set_ylim(max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02))


def _mark_swaps(axes: Axes, at: Sequence[float]) -> None:
    for x in at:
        axes.axvline(x, ymax=0.035, color=INK, linewidth=0.9)
    if at:
        note = f"{len(at)} swap{'s' if len(at) != 1 else ''} (ticks)"
        axes.annotate(note, (1, 0.04), xycoords="axes fraction", fontsize=8, color=INK, ha="right")


def _legend_above(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)
