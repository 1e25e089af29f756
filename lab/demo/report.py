"""The report: index.html with its pictures, and summary.json, in one folder that needs nothing else."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from lab.demo.curves import binary_tasks
from lab.demo.outcome import Outcome
from lab.demo.plots import ARM_NAMES, plot_auc, plot_hit_rate, plot_latency
from lab.demo.summary import Summary, faults
from lab.machine import MACHINE
from runtime.folder import replacing
from stream.tasks import TaskSpec
from student.evaluate.arms import ARMS, CONTROL, STUDENT
from student.evaluate.history import Point
from student.versions.manifest import Metrics

_PAGE = Template((files("lab.demo") / "page.html").read_text("utf-8"))


class Findings(NamedTuple):
    """All results of a demo: what was counted while it ran, and the learner's own metrics."""

    summary: Summary
    outcome: Outcome
    tasks: Sequence[TaskSpec]
    metrics: Metrics
    points: Sequence[Point]
    timings: Mapping[str, float]
    """Phase of the demo -> seconds it took."""
    data_note: str
    command: str

    @property
    def faults(self) -> list[str]:
        """Why the demo failed; empty when it did not."""
        return faults(self.summary, self.outcome.joined)


def write_report(folder: Path, found: Findings) -> Path:
    """Write summary.json, pictures and index.html into `folder`, in place of an earlier report; index.html's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("auc_*.png"):  # of another pair's tasks
        picture.unlink()
    with replacing(folder / "summary.json") as file:
        file.write(found.summary.model_dump_json(indent=2).encode() + b"\n")
    outcome, learnt = found.outcome, found.outcome.examples_of_version
    swaps_at_examples = [learnt[swap.version] for swap in outcome.swaps if swap.version in learnt]
    for task in binary_tasks(found.tasks):
        plot_auc(folder / f"auc_{task}.png", task, found.points, swaps_at_examples)
    plot_latency(folder / "latency.png", outcome.answers, outcome.swaps)
    plot_hit_rate(folder / "cache_hits.png", outcome.hits)
    index = folder / "index.html"
    with replacing(index) as file:
        file.write(_page(found).encode())
    return index


def _page(found: Findings) -> str:
    pictures = "".join(
        f'<figure><img src="auc_{task}.png" alt="Progressive AUC of {task} against examples"></figure>'
        for task in binary_tasks(found.tasks)
    )
    return _PAGE.substitute(
        verdict=_verdict(found.faults),
        lead=html.escape(_lead(found)),
        quality=_quality_table(found),
        auc_pictures=pictures,
        path=_table(_path_rows(found)),
        about=_table(_about_rows(found)),
    )


def _verdict(faults: Sequence[str]) -> str:
    if not faults:
        return '<p class="good">Every impression became exactly one example; every request was answered.</p>'
    return "".join(f'<p class="bad">{html.escape(fault)}</p>' for fault in faults)


def _lead(found: Findings) -> str:
    s = found.summary
    return (
        f"{s.impressions:,} impressions ({found.data_note}) went through Kafka, the join, the teacher's cache and the "
        f"learner; {s.swaps} new versions were swapped into the scorer while it answered {s.requests:,} requests."
    )


def _quality_table(found: Findings) -> str:
    head = ["task", "metric", *(ARM_NAMES[arm] for arm in ARMS), "student &minus; control"]
    return _table([_quality_row(task, found.metrics) for task in found.tasks], head)


def _quality_row(task: TaskSpec, metrics: Metrics) -> tuple[str, ...]:
    by_arm = metrics.get(task.name, {})
    name = "auc" if task.kind == "binary" else "rmse"
    values = {arm: getattr(by_arm[arm], name) if arm in by_arm else None for arm in ARMS}
    student, control = values[STUDENT], values[CONTROL]
    gain = f"{student - control:+.4f}" if student is not None and control is not None else "&ndash;"
    better = "AUC, more is better" if name == "auc" else "RMSE, less is better"
    return html.escape(task.name), better, *(_value(value) for value in values.values()), gain


def _path_rows(found: Findings) -> list[tuple[str, ...]]:
    s, outcome, joined = found.summary, found.outcome, found.outcome.joined
    retried = sum(a.retries > 0 for a in outcome.answers)
    hit_rate = "&ndash;" if s.cache_hit_rate is None else f"{100 * s.cache_hit_rate:.1f} % of examples"
    restarts = ", ".join(f"{stage} {count}" for stage, count in outcome.restarts.items() if count) or "none"
    return [
        ("impressions sent", f"{s.impressions:,}"),
        ("examples on the topic", f"{s.examples:,} ({joined.missing} missing, {joined.doubled} doubled)"),
        ("dead letters", f"{s.dead_letters:,}"),
        ("teacher logits found", hit_rate),
        ("swaps", f"{len(outcome.swaps)} seen by the client, {outcome.scorer_swaps} counted by the scorer"),
        ("requests", f"{s.requests:,}, {s.failed_requests} failed, {retried} sent again after a lost connection"),
        ("degraded answers", f"{sum(a.degraded for a in outcome.answers):,}"),
        ("latency", f"p50 {_value(s.score_p50_ms, 1)} ms, p99 {_value(s.score_p99_ms, 1)} ms"),
        ("processes started again", restarts),
    ]


def _about_rows(found: Findings) -> list[tuple[str, ...]]:
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.timings.items())
    return [
        ("data", html.escape(found.data_note)),
        ("command", f"<code>{html.escape(found.command)}</code>"),
        ("machine", html.escape(MACHINE)),
        ("time", f"{found.summary.seconds:.0f} s: {html.escape(phases)}"),
    ]


def _table(rows: Sequence[tuple[str, ...]], head: Sequence[str] = ()) -> str:
    """A row's first cell is its own head; `head` names the columns."""
    lines = [f"<th>{name}</th>" + "".join(f"<td>{value}</td>" for value in values) for name, *values in rows]
    lines = ["".join(f"<th>{name}</th>" for name in head), *lines] if head else lines
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _value(value: float | None, digits: int = 4) -> str:
    return "&ndash;" if value is None else f"{value:.{digits}f}"
