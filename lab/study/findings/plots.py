"""The findings as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.page import COLOURS, INK, save, style
from lab.study.findings.comparison import WHOM, Comparison, Judge, control_of
from lab.study.findings.findings import AS_INPUT_AND_PROFILES, PERMUTED, SERVED, TEACHER_AS_INPUT, Findings, Interval
from lab.study.grid import PLAIN_VARIANT
from lab.study.learners.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
from student.evaluate.arms import CONTROL, ITEM_MEAN, STUDENT

SERIES_COLOURS = {
    **COLOURS,
    TEACHER_AS_INPUT: "#2a9d6f",
    AS_INPUT_AND_PROFILES: "#17603f",
    PERMUTED: COLOURS[ITEM_MEAN],
    LR: "#b03a48",
    LR_TEACHER: "#7a1f2b",
    BAYES_BIAS: "#b58900",
    ONLINE_LR: INK,
}


def plot_all(comparison: Comparison, folder: Path) -> list[Path]:
    """Every picture that there are numbers for; the files written."""
    findings = comparison.findings
    written = [path for task in findings.tasks if (path := _plot_help(Judge(comparison, task), folder))]
    for task in (task.name for task in findings.tasks):
        plots = {"windows": _windows, "thin": _thin, "variants": _variants}
        for name, plot in plots.items():
            figure = Figure(figsize=(9, 3.8), layout="constrained")
            if plot(figure, findings, task):
                written.append(folder / f"{name}-{task}.png")
                save(figure, written[-1])
    return written


def _plot_help(judge: Judge, folder: Path) -> Path | None:
    """What the teacher gives on all of the log and on its parts, with intervals over the users; None without one."""
    findings, control = judge.comparison.findings, control_of(judge.comparison)
    names = {"all": "all", **WHOM, **{part: f"examples {part}" for part in findings.parts()}}
    parts = [part for part in names if findings.has_teacher and judge.against(control, part)]
    if not parts:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes, y = figure.subplots(), range(len(parts) - 1, -1, -1)
    for served, label, arm, above in ((False, "row by row", CONTROL, 0.12), (True, "served", STUDENT, -0.12)):
        found = [(at + above, judge.against(control, part, served=served)) for at, part in zip(y, parts, strict=True)]
        known = [(at, against.better) for at, against in found if against]
        for at, better in known:
            low, high = (better.mean if bound is None else bound for bound in (better.low, better.high))
            axes.plot([low, high], [at, at], color=SERIES_COLOURS[arm], linewidth=2)
        heights, means = [at for at, _ in known], [better.mean for _, better in known]
        axes.plot(means, heights, "o", color=SERIES_COLOURS[arm], markersize=5, label=label)
    axes.set_yticks(list(y), [names[part] for part in parts])
    axes.axvline(0, color=INK, linewidth=0.8)
    title = f"{judge.task.name}: what the teacher gives, {judge.measure}"
    _style(axes, title, "student better than its control by", grid="x")
    save(figure, folder / f"help-{judge.task.name}.png")
    return folder / f"help-{judge.task.name}.png"


def _windows(figure: Figure, findings: Findings, task: str) -> bool:
    """Each arm's score in each window of the stream."""
    axes, parts = figure.subplots(), findings.parts()
    for name, variant, arm in findings.series():
        _line(axes, range(len(parts)), [findings.mean(variant, part, task, arm) for part in parts], name)
    axes.set_xticks(range(len(parts)), parts)
    _style(axes, f"{task}: {findings.measure(task)}, row by row, by window of the stream", "examples")
    return bool(axes.lines)


def _thin(figure: Figure, findings: Findings, task: str) -> bool:
    """By the share of the users the score of each arm when it is served, and the gain in both ways."""
    shares = findings.shares()
    if not shares:
        return False
    left, right = figure.subplots(1, 2)
    found = [findings.at(share) for share in shares]
    base, served = findings.grid.baseline, f"{SERVED}all"
    for name, variant, arm in findings.series():
        if variant in {base, PLAIN_VARIANT}:
            _line(left, shares, [thin.mean(variant, served, task, arm) for thin in found], name)
    for label, part, colour in (("row by row", "all", CONTROL), ("served", served, STUDENT)):
        _line(right, shares, [thin.gain(base, part, task) for thin in found], label, SERIES_COLOURS[colour])
    right.axhline(0, color=INK, linewidth=0.8)
    for axes, title in ((left, f"{task}: {findings.measure(task)}, served"), (right, f"{task}: student - control")):
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        axes.minorticks_off()
        _style(axes, title, "users")
    return bool(left.lines)


def _variants(figure: Figure, findings: Findings, task: str) -> bool:
    """How much better each arm of each variant is than that of the baseline, with intervals."""
    axes, base = figure.subplots(), findings.grid.baseline
    varied = [v for v in findings.grid.variants if v.question and v.name != base and findings.seeds(v.name)]
    figure.set_size_inches(9, 1.2 + 0.24 * len(varied))
    for y, variant in enumerate(reversed(varied)):
        for arm, above in ((CONTROL, -0.15), (STUDENT, 0.15)):
            better = findings.better((variant.name, arm), (base, arm), "all", task)
            if better:
                label = arm if y == 0 else None
                axes.plot([better.low, better.high], [y + above] * 2, color=SERIES_COLOURS[arm], linewidth=2)
                axes.plot([better.mean], [y + above], "o", color=SERIES_COLOURS[arm], markersize=4, label=label)
    axes.set_yticks(range(len(varied)), [v.name for v in reversed(varied)], fontsize=8)
    axes.set_ylim(-0.6, len(varied) - 0.4)
    axes.axvline(0, color=INK, linewidth=0.8)
    _style(axes, f"{task}: each arm better than that of {base} by, row by row", findings.measure(task), grid="x")
    return bool(varied)


def _line(
    axes: Axes, x: Sequence[float], values: Sequence[Interval | None], label: str, colour: str | None = None
) -> None:
    points = [(at, value) for at, value in zip(x, values, strict=True) if value]
    if not points:
        return
    at = [place for place, _ in points]
    colour = colour or SERIES_COLOURS[label]
    axes.plot(at, [value.mean for _, value in points], "o-", color=colour, markersize=3, label=label)
    axes.fill_between(
        at, [v.low for _, v in points], [v.high for _, v in points], color=colour, alpha=0.15, linewidth=0
    )


def _style(axes: Axes, title: str, x_label: str, grid: Literal["x", "y"] = "y") -> None:
    style(axes, title, x_label, grid)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
