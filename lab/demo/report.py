"""The report: index.html with its pictures, study.html beside it, and the same numbers as summary.json."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.dev.client import Answer, swaps_seen
from lab.page import COLOURS, INK, MACHINE, MEASURES, NOTHING, figure, page, save, sentences, shown, style, table
from runtime.folder import replacing
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS, CONTROL, ITEM_MEAN, SERVED_CONTROL, SERVED_STUDENT, STUDENT, TEACHER
from student.evaluate.evaluation import RECENT_EXAMPLES
from student.evaluate.history import Point
from student.versions.manifest import Metrics

STUDY_PAGE = "study.html"
"""The study's own page, beside the report's."""

_SERVED_LINE = {"linewidth": 1.2, "linestyle": (0, (5, 2))}
_ARM_LINES: dict[str, tuple[str, dict[str, Any]]] = {
    STUDENT: ("student", {"linewidth": 2.2, "color": COLOURS[STUDENT]}),
    CONTROL: ("control", {"linewidth": 2.0, "color": COLOURS[CONTROL]}),
    TEACHER: ("teacher as it is", {"linewidth": 1.4, "linestyle": "--", "color": COLOURS[TEACHER]}),
    ITEM_MEAN: ("item mean", {"linewidth": 1.4, "linestyle": ":", "color": COLOURS[ITEM_MEAN]}),
    SERVED_STUDENT: ("served student", {**_SERVED_LINE, "color": COLOURS[STUDENT]}),
    SERVED_CONTROL: ("served control", {**_SERVED_LINE, "color": COLOURS[CONTROL]}),
}
_WINDOW_REQUESTS = 100
"""Requests in the running p50 and p99 of the latency plot."""
_BODY = Template((files("lab.demo") / "page.html").read_text("utf-8"))


class Summary(FrozenModel):
    """The demo in numbers. `examples` counts records on the topic: a doubled one counts twice."""

    data: str
    impressions: int
    examples: int
    missing: int
    """Impressions that became no example."""
    doubled: int
    unknown: int
    """Examples with the id of no impression."""
    dead_letters: int
    requests: int
    failed_requests: int
    retried_requests: int
    """Sent again after a lost connection."""
    degraded_answers: int
    swaps: int
    score_p50_ms: float | None
    score_p99_ms: float | None
    freshness_p50_s: float | None
    freshness_p95_s: float | None
    """Seconds from an example on the topic to the first answer of a version that has learnt it."""
    cache_hit_rate: float | None
    restarts: Mapping[str, int]
    """Of each process that was started again."""
    auc: Mapping[str, Mapping[str, float | None]]
    """Binary task -> arm -> progressive AUC in [0, 1]; None where an arm has no prediction for the task."""
    rmse: Mapping[str, Mapping[str, float | None]]
    """Regression task -> arm -> progressive RMSE in the label's unit; None likewise."""
    served_age_examples: float | None
    """How many examples lie between a served prediction's version and the example, on average over all tasks."""
    study: Mapping[str, Any] | None
    """The headline.json of `graft study` on the first examples; None when there was no example."""
    phases: Mapping[str, float]
    """The seconds that each took."""
    seconds: float

    @property
    def faults(self) -> list[str]:
        """Why the demo failed, a line each; none when every request was answered and each impression joined once."""
        lines = {
            "no score request was answered: the scorer never became ready": self.requests == 0,
            f"{self.failed_requests} of {self.requests} score requests failed; 0 are allowed": self.failed_requests,
            f"{self.missing} of {self.impressions} impressions did not become an example": self.missing,
            f"{self.doubled} examples came a second time; each impression must become exactly one": self.doubled,
            f"{self.unknown} examples have the id of no impression that was sent": self.unknown,
        }
        return [line for line, failed in lines.items() if failed]


def by_arm(metrics: Metrics, task: TaskSpec) -> dict[str, float | None]:
    """The AUC of every arm on a binary task, the RMSE on a regression."""
    arms = metrics.get(task.name, {})
    measure = "auc" if task.kind == "binary" else "rmse"
    return {arm: getattr(arms.get(arm), measure, None) for arm in ALL_ARMS}


def served_age(metrics: Metrics) -> float | None:
    """How many examples lie between a served student's prediction and its version, on average; None without one."""
    served = [arms[SERVED_STUDENT] for arms in metrics.values() if SERVED_STUDENT in arms]
    ages = [(arm.age_examples, arm.count) for arm in served if arm.age_examples is not None]
    return sum(age * count for age, count in ages) / sum(count for _, count in ages) if ages else None


class Findings(NamedTuple):
    """The summary, and what its pictures are drawn of."""

    summary: Summary
    tasks: Sequence[TaskSpec]
    points: Sequence[Point]
    """Of the learner's arms."""
    answers: Sequence[Answer]
    swaps_at_examples: Sequence[int]
    """How many examples each version had learnt that was swapped in."""
    data_note: str


def write_report(folder: Path, findings: Findings, command: str) -> Path:
    """Write summary.json, pictures and index.html into `folder`, in place of an earlier report; index.html's path.

    `command`: what made it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("auc_*.png"):  # of another pair's tasks
        picture.unlink()
    with replacing(folder / "summary.json") as file:
        file.write(findings.summary.model_dump_json(indent=2).encode() + b"\n")
    for task in _binary_tasks(findings):
        plot_auc(folder / f"auc_{task}.png", task, findings.points, findings.swaps_at_examples)
    plot_latency(folder / "latency.png", findings.answers)
    index = folder / "index.html"
    with replacing(index) as file:
        file.write(page("graft demo", _body(folder, findings, command)).encode())
    return index


def _body(folder: Path, findings: Findings, command: str) -> str:
    """What the page says, with the pictures of `folder`."""
    s, age = findings.summary, findings.summary.served_age_examples
    lead = (
        f"{s.impressions:,} impressions ({findings.data_note}) went through Kafka, the join, the teacher's cache and "
        f"the learner; {s.swaps} new versions were swapped into the scorer while it answered {s.requests:,} requests."
    )
    good = '<p class="good">Every impression became exactly one example; every request was answered.</p>'
    names = [name for name, _ in _ARM_LINES.values()]
    head = ["task", "metric", *names, "student &minus; control", "served: student &minus; control"]
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in s.phases.items())
    about = [
        ("data", html.escape(findings.data_note)),
        ("command", f"<code>{html.escape(command)}</code>"),
        ("machine", html.escape(MACHINE)),
        ("time", f"{s.seconds:.0f} s: {html.escape(phases)}"),
    ]
    return _BODY.substitute(
        verdict="".join(f'<p class="bad">{html.escape(fault)}</p>' for fault in s.faults) or good,
        lead=html.escape(lead),
        quality=table([_quality_row(task, s) for task in findings.tasks], head),
        age="none has served" if age is None else f"{age:,.0f} examples behind, on average",
        auc_pictures="".join(
            figure(folder / f"auc_{task}.png", f"Progressive AUC of {task} against examples")
            for task in _binary_tasks(findings)
        ),
        latency_picture=figure(folder / "latency.png", "Latency of score requests over time, swaps marked"),
        study=_study(findings),
        path=table(_path_rows(s)),
        about=table(about),
    )


def _quality_row(task: TaskSpec, summary: Summary) -> tuple[str, ...]:
    values = (summary.auc if task.kind == "binary" else summary.rmse)[task.name]
    gains = [_gain(values[STUDENT], values[CONTROL]), _gain(values[SERVED_STUDENT], values[SERVED_CONTROL])]
    return html.escape(task.name), MEASURES[task.kind], *(shown(values[arm]) for arm in _ARM_LINES), *gains


def _gain(student: float | None, control: float | None) -> str:
    return f"{student - control:+.4f}" if student is not None and control is not None else NOTHING


def _study(findings: Findings) -> str:
    """What `graft study` says of the first examples: its answer, and each model's scores."""
    study = findings.summary.study
    if study is None:
        return '<p class="note">There was no example to learn.</p>'
    lead = (
        f'<p class="note">The first {study["events"]:,} examples of this run, learnt again after the stream by '
        "<code>graft study</code>, with five seeds: the student after its bootstrap, and models that could be better "
        "than it. <em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it "
        "knows those of impressions that came an hour before its own, whatever the pace of this replay. "
        f'<a href="{STUDY_PAGE}">{STUDY_PAGE}</a> says what each model is, and has plots and intervals.</p>'
    )
    tables = []
    for task in findings.tasks:
        measure, served = ("auc", "served") if task.kind == "binary" else ("rmse", "served_rmse")
        scores, served_scores = study[measure][task.name], study[served][task.name]
        rows = [(html.escape(name), shown(score), shown(served_scores.get(name))) for name, score in scores.items()]
        tables.append(table(rows, [f"{html.escape(task.name)}: {MEASURES[task.kind]}", "row by row", "served"]))
    return f"{lead}{''.join(tables)}{sentences(study['answer'])}"


def _path_rows(s: Summary) -> list[tuple[str, ...]]:
    hit_rate = NOTHING if s.cache_hit_rate is None else f"{100 * s.cache_hit_rate:.1f} % of examples"
    fresh = f"p50 {shown(s.freshness_p50_s, 1)} s, p95 {shown(s.freshness_p95_s, 1)} s"
    retried = f"{s.retried_requests} sent again after a lost connection"
    return [
        ("impressions sent", f"{s.impressions:,}"),
        ("examples on the topic", f"{s.examples:,} ({s.missing} missing, {s.doubled} doubled)"),
        ("dead letters", f"{s.dead_letters:,}"),
        ("teacher logits found", hit_rate),
        ("requests", f"{s.requests:,}, {s.failed_requests} failed, {retried}"),
        ("degraded answers", f"{s.degraded_answers:,}"),
        ("latency", f"p50 {shown(s.score_p50_ms, 1)} ms, p99 {shown(s.score_p99_ms, 1)} ms"),
        ("freshness", f"{fresh} from an example on the topic to an answer that has learnt it"),
        ("processes started again", ", ".join(f"{stage} {count}" for stage, count in s.restarts.items()) or "none"),
    ]


def _binary_tasks(findings: Findings) -> list[str]:
    """The names of the tasks that have an AUC, in the project's order."""
    return [task.name for task in findings.tasks if task.kind == "binary"]


def plot_auc(path: Path, task: str, points: Sequence[Point], swaps_at_examples: Sequence[int]) -> None:
    """Progressive AUC of every arm on `task` against examples: over all so far, and over the recent window."""
    drawing = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)
    panels = [(left, "whole", "all examples so far"), (right, "recent", f"the last {RECENT_EXAMPLES:,} examples")]
    for axes, slice_name, title in panels:
        for arm, (name, line) in _ARM_LINES.items():
            examples, auc = curve(points, task, arm, slice_name)
            if examples:
                axes.plot(examples, auc, label=name, **line)
        _style(axes, f"{task}: {title}", "examples learnt")
        _limit_auc(axes, points, task)
        _mark_swaps(axes, swaps_at_examples)
    left.set_ylabel("progressive AUC")
    handles, labels = left.get_legend_handles_labels()
    if handles:
        drawing.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    save(drawing, path)


def curve(points: Sequence[Point], task: str, arm: str, slice_name: str = "whole") -> tuple[list[int], list[float]]:
    """Numbers of examples, and the AUC of `arm` on `task` over one slice at each, where it is defined."""
    metrics = [(p.examples, p.slices.get(slice_name, {}).get(task, {}).get(arm)) for p in points]
    defined = [(examples, m.auc) for examples, m in metrics if m is not None and m.auc is not None]
    return [examples for examples, _ in defined], [auc for _, auc in defined]


def plot_latency(path: Path, answers: Sequence[Answer]) -> None:
    """Every answered request's latency over time, with running percentiles; logarithmic."""
    drawing = Figure(figsize=(11, 3.6), layout="constrained")
    axes = drawing.subplots()
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
        axes.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3)
    _style(axes, "Latency of POST /score as the client saw it", "seconds since the stages started")
    axes.set_ylabel("milliseconds")
    _mark_swaps(axes, [swap.at_seconds for swap in swaps_seen(answers)])
    save(drawing, path)


def _style(axes: Axes, title: str, x_label: str) -> None:
    style(axes, title, x_label)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _limit_auc(axes: Axes, points: Sequence[Point], task: str) -> None:
    """Leave the noise of the first examples out of the picture's range."""
    settled = points[min(4, len(points) // 4) :]
    curves = [curve(settled, task, arm, slice_name)[1] for arm in ALL_ARMS for slice_name in ("whole", "recent")]
    values = [auc for auc_of_arm in curves for auc in auc_of_arm]
    if values:
        axes.set_ylim(max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02))


def _mark_swaps(axes: Axes, at: Sequence[float]) -> None:
    for x in at:
        axes.axvline(x, ymax=0.035, color=INK, linewidth=0.9)
    if at:
        note = f"{len(at)} swap{'s' if len(at) != 1 else ''} (ticks)"
        axes.annotate(note, (1, 0.04), xycoords="axes fraction", fontsize=8, color=INK, ha="right")
