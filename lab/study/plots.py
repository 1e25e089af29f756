"""The findings as PNG files; the colours of the arms are those of the demo's report."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.study.findings import Findings
from lab.study.intervals import Interval

_INK, _FAINT = "#22272e", "#d9dde3"
_COLOURS = {
    "student": "#0b6bcb",
    "control": "#d9730d",
    "teacher": "#6b4fbb",
    "teacher as input": "#2a9d6f",
    "permuted": "#8a919c",
    "regression": "#22272e",
}


def plot_all(findings: Findings, folder: Path) -> list[Path]:
    """Every picture that the findings have numbers for; the files written."""
    written = []
    for task in findings.binary:
        plots = {"windows": _windows, "traffic": _traffic, "variants": _variants}
        for name, plot in plots.items():
            figure = Figure(figsize=(9, 3.8), layout="constrained")
            if plot(figure, findings, task):
                written.append(folder / f"{name}-{task}.png")
                _save(figure, written[-1])
    return written


def _windows(figure: Figure, findings: Findings, task: str) -> bool:
    """Each arm's AUC in each window of the stream."""
    axes, base = figure.subplots(), findings.grid.baseline
    as_input, permuted = findings.teacher_as_input(), findings.permuted()
    lines = [(arm, base, arm) for arm in ("student", "control", "teacher")]
    lines += [("teacher as input", as_input.name, "student")] if as_input else []
    lines += [("permuted", permuted.name, "student")] if permuted else []
    parts = findings.parts()
    for label, variant, arm in lines:
        _line(axes, range(len(parts)), [findings.mean(variant, part, task, arm) for part in parts], label)
    axes.set_xticks(range(len(parts)), parts)
    _style(axes, f"{task}: progressive AUC by window of the stream", "examples")
    return bool(axes.lines)


def _traffic(figure: Figure, findings: Findings, task: str) -> bool:
    """AUC on the last fifth after N examples, and progressive gain on all and on new items."""
    left, right = figure.subplots(1, 2)
    base = findings.grid.baseline
    traffic_of = {v.name: v.traffic or findings.grid.traffic for v in findings.grid.variants}
    names = [name for name, sizes in traffic_of.items() if sizes and findings.values(name, "all", task, "student")]
    base = base if base in names else next(iter(names), base)
    sizes = sorted(set(traffic_of[base]))
    lines = [(arm, base, arm) for arm in ("student", "control", "teacher")]
    lines += [
        ("teacher as input", v.name, "student") for v in findings.grid.variants if v.teacher_as_input and v.traffic
    ]
    lines += [("regression", v.name, "regression") for v in findings.grid.variants if not v.learner]
    for label, variant, arm in lines:
        _line(left, sizes, [findings.mean(variant, f"held out after {n}", task, arm) for n in sizes], label)
    for label, part, colour in (("all items", "first {}", "student"), ("new items", "first {}, new items", "control")):
        gains = [findings.gain(base, part.format(n), task) for n in sizes]
        _line(right, sizes, gains, label, _COLOURS[colour])
    right.axhline(0, color=_INK, linewidth=0.8)
    for axes in (left, right):
        axes.set_xscale("log")
    _style(left, f"{task}: AUC on the last 20 %", "examples learnt")
    _style(right, f"{task}: student - control, progressive", "first N examples")
    return bool(left.lines)


def _variants(figure: Figure, findings: Findings, task: str) -> bool:
    """The gain of each variant with its interval."""
    axes = figure.subplots()
    varied = [v for v in findings.grid.variants if v.question]
    base, part = findings.grid.baseline, findings.baseline_part(varied[0].events if varied else None)
    named = [(base, findings.gain(base, part, task)), *((v.name, findings.gain(v.name, "all", task)) for v in varied)]
    gains = [(name, gain) for name, gain in named if gain]
    figure.set_size_inches(9, 1.2 + 0.24 * len(gains))
    for y, (name, gain) in enumerate(reversed(gains)):
        colour = _COLOURS["student"] if name == findings.grid.baseline else _INK
        axes.plot([gain.low, gain.high], [y, y], color=colour, linewidth=2)
        axes.plot([gain.mean], [y], "o", color=colour, markersize=4)
    axes.set_yticks(range(len(gains)), [name for name, _ in reversed(gains)], fontsize=8)
    axes.axvline(0, color=_INK, linewidth=0.8)
    _style(axes, f"{task}: student - control of every variant, 95 % intervals", "AUC", grid="x")
    return len(gains) > 1


def _line(
    axes: Axes, x: Sequence[float], values: Sequence[Interval | None], label: str, colour: str | None = None
) -> None:
    points = [(at, value) for at, value in zip(x, values, strict=True) if value]
    if not points:
        return
    at = [place for place, _ in points]
    colour = colour or _COLOURS[label]
    axes.plot(at, [value.mean for _, value in points], "o-", color=colour, markersize=3, label=label)
    axes.fill_between(
        at, [v.low for _, v in points], [v.high for _, v in points], color=colour, alpha=0.15, linewidth=0
    )


def _style(axes: Axes, title: str, x_label: str, grid: Literal["x", "y"] = "y") -> None:
    axes.set_title(title, loc="left", fontsize=10, color=_INK, fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.grid(axis=grid, color=_FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=100, metadata={"Software": "graft"})
    path.write_bytes(page.getvalue())
