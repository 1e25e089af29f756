"""The report's pictures, as PNG files. One colour an arm, everywhere."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.demo.client import Answer, Swap
from lab.demo.curves import ARMS, ProgressPoint, Window, curve

_INK, _FAINT = "#22272e", "#d9dde3"
_STYLES: dict[str, dict[str, Any]] = {
    "student": {"color": "#0b6bcb", "linewidth": 2.2, "label": "student (distilled)"},
    "control": {"color": "#d9730d", "linewidth": 2.0, "label": "control (same student, no teacher)"},
    "teacher": {"color": "#6b4fbb", "linewidth": 1.4, "linestyle": "--", "label": "teacher as it is"},
    "item_mean": {"color": "#8a919c", "linewidth": 1.4, "linestyle": ":", "label": "item mean"},
}
_WINDOW_REQUESTS = 100
"""Requests in the running p50 and p99 of the latency plot."""


class HitRate(NamedTuple):
    """Teacher logits found so far: `found` of `asked` at a time since the stages started."""

    at_seconds: float
    found: float
    asked: float

    @property
    def rate(self) -> float | None:
        """The share found; None before the first was asked for."""
        return self.found / self.asked if self.asked else None


def plot_auc(path: Path, task: str, points: Sequence[ProgressPoint], swaps_at_examples: Sequence[int]) -> None:
    """Progressive AUC of every arm on `task` against examples: over all so far, and over the recent window."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels: list[tuple[Axes, Window, str]] = [
        (left, "metrics", "all examples so far"),
        (right, "recent", "the last 2,000 examples"),
    ]
    for axes, window, title in panels:
        for arm in ARMS:
            examples, auc = curve(points, task, arm, window)
            if examples:
                axes.plot(examples, auc, **_STYLES[arm])
        _style(axes, f"{task}: {title}", "examples learnt")
        _limit_auc(axes, points, task)
        _mark_swaps(axes, swaps_at_examples)
    left.set_ylabel("progressive AUC")
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=len(ARMS))
    _save(figure, path)


def plot_latency(path: Path, answers: Sequence[Answer], swaps: Sequence[Swap]) -> None:
    """Every answered request's latency over time, with running percentiles; logarithmic."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    answered = [a for a in answers if a.fault is None]
    if answered:
        seconds, latency_ms = [a.at_seconds for a in answered], [a.latency_ms for a in answered]
        axes.scatter(seconds, latency_ms, s=5, color=_STYLES["student"]["color"], alpha=0.25, label="one request")
        for share, style in ((0.5, "-"), (0.99, "--")):
            label = f"p{share * 100:.0f} of the last {_WINDOW_REQUESTS}"
            axes.plot(seconds, _running(latency_ms, share), style, color=_INK, linewidth=1.2, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        _legend_above(axes)
    _style(axes, "Latency of POST /score as the client saw it", "seconds since the stages started")
    axes.set_ylabel("milliseconds")
    _mark_swaps(axes, [s.at_seconds for s in swaps])
    _save(figure, path)


def plot_hit_rate(path: Path, hits: Sequence[HitRate]) -> None:
    """Share of learnt examples whose teacher logit lay in the cache: so far, and between two looks."""
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    axes = figure.subplots()
    moved = [(before, after) for before, after in itertools.pairwise(hits) if after.asked > before.asked]
    if moved:
        seconds = [after.at_seconds for _, after in moved]
        recent = [100 * (after.found - before.found) / (after.asked - before.asked) for before, after in moved]
        axes.plot(seconds, recent, color="#8a919c", linewidth=1.0, label="since the look before")
        so_far = [100 * after.found / after.asked for _, after in moved]
        axes.plot(seconds, so_far, color=_STYLES["teacher"]["color"], linewidth=2.0, label="so far")
        _legend_above(axes)
    axes.set_ylim(0, 104)
    _style(axes, "Teacher logits found in the cache", "seconds since the stages started")
    axes.set_ylabel("% of examples")
    _save(figure, path)


def _style(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, fontweight="bold")
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)


def _limit_auc(axes: Axes, points: Sequence[ProgressPoint], task: str) -> None:
    """Leave the noise of the first examples out of the picture's range."""
    settled = points[min(4, len(points) // 4) :]
    windows: tuple[Window, ...] = ("metrics", "recent")
    curves = [curve(settled, task, arm, window).auc for arm in ARMS for window in windows]
    values = [auc for auc_of_arm in curves for auc in auc_of_arm]
    if values:
        axes.set_ylim(max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02))


def _mark_swaps(axes: Axes, at: Sequence[float]) -> None:
    for x in at:
        axes.axvline(x, ymax=0.035, color=_INK, linewidth=0.9)
    if at:
        note = f"{len(at)} swap{'s' if len(at) != 1 else ''} (ticks)"
        axes.annotate(note, (1, 0.04), xycoords="axes fraction", fontsize=8, color=_INK, ha="right")


def _legend_above(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)


def _running(values: Sequence[float], share: float) -> list[float]:
    running: list[float] = []
    for end in range(1, len(values) + 1):
        window = sorted(values[max(0, end - _WINDOW_REQUESTS) : end])
        running.append(window[min(len(window) - 1, int(share * len(window)))])
    return running


def _save(figure: Figure, path: Path) -> None:
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=110, metadata={"Software": "graft"})
    path.write_bytes(page.getvalue())
