"""The report: index.html, which needs nothing else, and the same as summary.json and pictures."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from lab.demo.baselines import LABEL_DELAY_SECONDS, Baselines
from lab.demo.curves import binary_tasks
from lab.demo.outcome import Outcome
from lab.demo.plots import ARM_NAMES, plot_auc, plot_hit_rate, plot_latency
from lab.demo.summary import Summary, faults
from lab.machine import MACHINE
from lab.page import MEASURES, NOTHING, figure, page, sentences, shown, table
from lab.study.model_scores import scores_table
from runtime.folder import replacing
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS, CONTROL, SERVED_CONTROL, SERVED_STUDENT, STUDENT
from student.evaluate.history import Point

_LEAD = """<p class="note">The first {examples} examples of this run, learnt again after the stream by the code of
<code>graft study</code>, with one seed: the student after its bootstrap, and models that could be better than it.
<em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it knows those of
impressions that came {minutes} minutes before its own, whatever the pace of this replay.</p>"""


def baselines_section(baselines: Baselines | None, tasks: Sequence[TaskSpec]) -> str:
    """Tables and verdict, with the number of examples."""
    if baselines is None:
        return '<p class="note">There was no example to learn.</p>'
    lead = _LEAD.format(examples=f"{baselines.examples:,}", minutes=LABEL_DELAY_SECONDS // 60)
    tables = "".join(scores_table(task, baselines.scores[task.name]) for task in tasks)
    return f"{lead}{tables}{sentences(baselines.verdict)}"


_BODY = Template((files("lab.demo") / "page.html").read_text("utf-8"))


class Findings(NamedTuple):
    """All results of a demo: what was counted while it ran, and the learner's own metrics."""

    summary: Summary
    outcome: Outcome
    tasks: Sequence[TaskSpec]
    points: Sequence[Point]
    """Of the learner's arms."""
    plain_points: Sequence[Point]
    """Of the plain models, over the examples that they have learnt."""
    timings: Mapping[str, float]
    """Phase of the demo -> seconds it took."""
    data_note: str

    @property
    def faults(self) -> list[str]:
        """Why the demo failed; empty when it did not."""
        return faults(self.summary, self.outcome.joined)


def write_report(folder: Path, found: Findings, command: str) -> Path:
    """Write summary.json, pictures and index.html into `folder`, in place of an earlier report; index.html's path.

    `command`: what made it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("auc_*.png"):  # of another pair's tasks
        picture.unlink()
    with replacing(folder / "summary.json") as file:
        file.write(found.summary.model_dump_json(indent=2).encode() + b"\n")
    outcome, learnt = found.outcome, found.outcome.examples_of_version
    swaps_at_examples = [learnt[swap.version] for swap in outcome.swaps if swap.version in learnt]
    for task in binary_tasks(found.tasks):
        plot_auc(folder / f"auc_{task}.png", task, found.points, found.plain_points, swaps_at_examples)
    plot_latency(folder / "latency.png", outcome.answers, outcome.swaps)
    plot_hit_rate(folder / "cache_hits.png", outcome.hits)
    index = folder / "index.html"
    with replacing(index) as file:
        file.write(page("graft demo", _body(folder, found, command)).encode())
    return index


def _body(folder: Path, found: Findings, command: str) -> str:
    """What the page says, with the pictures of `folder`."""
    return _BODY.substitute(
        verdict=_verdict(found.faults),
        lead=html.escape(_lead(found)),
        quality=_quality_table(found),
        age=_age(found.summary.served_age_examples),
        auc_pictures="".join(
            figure(folder / f"auc_{task}.png", f"Progressive AUC of {task} against examples")
            for task in binary_tasks(found.tasks)
        ),
        serving_pictures=figure(folder / "latency.png", "Latency of score requests over time, swaps marked")
        + figure(folder / "cache_hits.png", "Share of examples whose teacher logit lay in the cache"),
        baselines=baselines_section(found.summary.baselines, found.tasks),
        path=table(_path_rows(found)),
        about=table(_about_rows(found, command)),
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
    gains = "student &minus; control", "served: student &minus; control"
    head = ["task", "metric", *(ARM_NAMES[arm] for arm in ALL_ARMS), *gains]
    return table([_quality_row(task, found.summary) for task in found.tasks], head)


def _quality_row(task: TaskSpec, summary: Summary) -> tuple[str, ...]:
    values = (summary.auc if task.kind == "binary" else summary.rmse)[task.name]
    gains = (values[STUDENT], values[CONTROL]), (values[SERVED_STUDENT], values[SERVED_CONTROL])
    return html.escape(task.name), MEASURES[task.kind], *map(shown, values.values()), *(_gain(*both) for both in gains)


def _gain(student: float | None, control: float | None) -> str:
    return f"{student - control:+.4f}" if student is not None and control is not None else NOTHING


def _age(examples: float | None) -> str:
    return "none has served" if examples is None else f"{examples:,.0f} examples behind, on average"


def _path_rows(found: Findings) -> list[tuple[str, ...]]:
    s, outcome, joined = found.summary, found.outcome, found.outcome.joined
    retried = sum(a.retries > 0 for a in outcome.answers)
    hit_rate = NOTHING if s.cache_hit_rate is None else f"{100 * s.cache_hit_rate:.1f} % of examples"
    restarts = ", ".join(f"{stage} {count}" for stage, count in outcome.restarts.items() if count) or "none"
    return [
        ("impressions sent", f"{s.impressions:,}"),
        ("examples on the topic", f"{s.examples:,} ({joined.missing} missing, {joined.doubled} doubled)"),
        ("dead letters", f"{s.dead_letters:,}"),
        ("teacher logits found", hit_rate),
        ("swaps", f"{len(outcome.swaps)} seen by the client, {outcome.scorer_swaps} counted by the scorer"),
        ("requests", f"{s.requests:,}, {s.failed_requests} failed, {retried} sent again after a lost connection"),
        ("degraded answers", f"{sum(a.degraded for a in outcome.answers):,}"),
        ("latency", f"p50 {shown(s.score_p50_ms, 1)} ms, p99 {shown(s.score_p99_ms, 1)} ms"),
        ("freshness", f"{_freshness(s)} from an example on the topic to an answer that has learnt it"),
        ("processes started again", restarts),
    ]


def _freshness(summary: Summary) -> str:
    return f"p50 {shown(summary.freshness_p50_s, 1)} s, p95 {shown(summary.freshness_p95_s, 1)} s"


def _about_rows(found: Findings, command: str) -> list[tuple[str, ...]]:
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.timings.items())
    return [
        ("data", html.escape(found.data_note)),
        ("command", f"<code>{html.escape(command)}</code>"),
        ("machine", html.escape(MACHINE)),
        ("time", f"{found.summary.seconds:.0f} s: {html.escape(phases)}"),
    ]
