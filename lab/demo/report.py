"""The report: index.html, which needs nothing else, and the same as summary.json and pictures."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from lab.demo.outcome import Joined, Outcome
from lab.demo.plots import ARM_NAMES, plot_auc, plot_hit_rate, plot_latency
from lab.dev.client import percentile_ms
from lab.page import MACHINE, MEASURES, NOTHING, figure, page, sentences, shown, table
from runtime.folder import replacing
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS, CONTROL, SERVED_CONTROL, SERVED_STUDENT, STUDENT
from student.evaluate.history import Point
from student.versions.manifest import ArmMetrics, Metrics

STUDY_PAGE = "study.html"
"""The study's own page, beside the report's."""


class Score(FrozenModel):
    """A model's AUC of a binary task, RMSE of a regression, judged in both ways; None where it is undefined."""

    row_by_row: float | None
    served: float | None


class Baselines(FrozenModel):
    """What `graft study` says of the first `examples`: each model's scores by task, and its answer."""

    examples: int
    scores: Mapping[str, Mapping[str, Score]]
    answer: list[str]


class Summary(FrozenModel):
    """The demo in numbers. `examples` counts records on the topic: a doubled one counts twice."""

    data: str
    impressions: int
    examples: int
    dead_letters: int
    requests: int
    failed_requests: int
    swaps: int
    score_p50_ms: float | None
    score_p99_ms: float | None
    freshness_p50_s: float | None
    freshness_p95_s: float | None
    """Seconds from an example on the topic to the first answer of a version that has learnt it."""
    cache_hit_rate: float | None
    auc: Mapping[str, Mapping[str, float | None]]
    """Binary task -> arm -> progressive AUC in [0, 1]; None where an arm has no prediction for the task."""
    rmse: Mapping[str, Mapping[str, float | None]]
    """Regression task -> arm -> progressive RMSE in the label's unit; None likewise."""
    served_age_examples: float | None
    """How many examples lie between a served prediction's version and the example, on average over all tasks."""
    baselines: Baselines | None
    """None when there was no example."""
    seconds: float


def summary_of(
    data: str,
    outcome: Outcome,
    metrics: Metrics,
    tasks: Sequence[TaskSpec],
    study: Mapping[str, Any] | None,
    seconds: float,
) -> Summary:
    """The outcome in numbers, with the learner's own `metrics` and the headline of a study; `data` names the pair."""
    return Summary(
        data=data,
        impressions=outcome.joined.impressions,
        examples=outcome.joined.examples,
        dead_letters=outcome.dead_letters,
        requests=len(outcome.answers),
        failed_requests=sum(a.fault is not None for a in outcome.answers),
        swaps=min(len(outcome.swaps), outcome.scorer_swaps),
        score_p50_ms=percentile_ms(outcome.answers, 0.5),
        score_p99_ms=percentile_ms(outcome.answers, 0.99),
        freshness_p50_s=outcome.freshness_seconds(0.5),
        freshness_p95_s=outcome.freshness_seconds(0.95),
        cache_hit_rate=outcome.hits[-1].rate if outcome.hits else None,
        auc={task.name: by_arm(metrics, task) for task in tasks if task.kind == "binary"},
        rmse={task.name: by_arm(metrics, task) for task in tasks if task.kind == "regression"},
        served_age_examples=_served_age(metrics),
        baselines=_baselines(study, tasks) if study else None,
        seconds=seconds,
    )


def _baselines(study: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Baselines:
    scores = {}
    for task in tasks:
        measure, served = ("auc", "served") if task.kind == "binary" else ("rmse", "served_rmse")
        row_by_row, served_scores = study[measure][task.name], study[served][task.name]
        scores[task.name] = {
            model: Score(row_by_row=score, served=served_scores.get(model)) for model, score in row_by_row.items()
        }
    return Baselines(examples=study["events"], scores=scores, answer=study["answer"])


def by_arm(metrics: Metrics, task: TaskSpec) -> dict[str, float | None]:
    """The AUC of every arm on a binary task, the RMSE on a regression."""
    arms = metrics.get(task.name, {})
    return {arm: _score(arms[arm], task) if arm in arms else None for arm in ALL_ARMS}


def _score(metrics: ArmMetrics, task: TaskSpec) -> float | None:
    return metrics.auc if task.kind == "binary" else metrics.rmse


def _served_age(metrics: Metrics) -> float | None:
    served = [arms[SERVED_STUDENT] for arms in metrics.values() if SERVED_STUDENT in arms]
    ages = [(one.age_examples, one.count) for one in served if one.age_examples is not None]
    return sum(age * count for age, count in ages) / sum(count for _, count in ages) if ages else None


def faults(summary: Summary, joined: Joined) -> list[str]:
    """Why the demo failed, one line each; empty when every request was answered and each impression joined once."""
    requests = summary.requests
    lines = {
        "no score request was answered: the scorer never became ready": requests == 0,
        f"{summary.failed_requests} of {requests} score requests failed; 0 are allowed": summary.failed_requests,
        f"{joined.missing} of {joined.impressions} impressions did not become an example": joined.missing,
        f"{joined.doubled} examples came a second time; each impression must become exactly one": joined.doubled,
        f"{joined.unknown} examples have the id of no impression that was sent": joined.unknown,
    }
    return [line for line, failed in lines.items() if failed]


_LEAD = """<p class="note">The first {examples} examples of this run, learnt again after the stream by
<code>graft study</code>, with five seeds: the student after its bootstrap, and models that could be better than it.
<em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it knows those of
impressions that came an hour before its own, whatever the pace of this replay. <a href="study.html">study.html</a> says
what each model is, and has plots and intervals.</p>"""


def baselines_section(baselines: Baselines | None, tasks: Sequence[TaskSpec]) -> str:
    """Tables and answer, with the number of examples."""
    if baselines is None:
        return '<p class="note">There was no example to learn.</p>'
    tables = "".join(_scores_table(task, baselines.scores[task.name]) for task in tasks)
    return f"{_LEAD.format(examples=f'{baselines.examples:,}')}{tables}{sentences(baselines.answer)}"


def _scores_table(task: TaskSpec, scores: Mapping[str, Score]) -> str:
    rows = [(html.escape(model), shown(score.row_by_row), shown(score.served)) for model, score in scores.items()]
    return table(rows, [f"{html.escape(task.name)}: {MEASURES[task.kind]}", "row by row", "served"])


_BODY = Template((files("lab.demo") / "page.html").read_text("utf-8"))


class Findings(NamedTuple):
    """All results of a demo: what was counted while it ran, and the learner's own metrics."""

    summary: Summary
    outcome: Outcome
    tasks: Sequence[TaskSpec]
    points: Sequence[Point]
    """Of the learner's arms."""
    seconds: Mapping[str, float]
    """Phase of the demo -> seconds it took."""
    data_note: str

    @property
    def faults(self) -> list[str]:
        """Why the demo failed; empty when it did not."""
        return faults(self.summary, self.outcome.joined)


def write_report(folder: Path, findings: Findings, command: str) -> Path:
    """Write summary.json, pictures and index.html into `folder`, in place of an earlier report; index.html's path.

    `command`: what made it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("auc_*.png"):  # of another pair's tasks
        picture.unlink()
    with replacing(folder / "summary.json") as file:
        file.write(findings.summary.model_dump_json(indent=2).encode() + b"\n")
    outcome, learnt = findings.outcome, findings.outcome.examples_of_version
    swaps_at_examples = [learnt[swap.version] for swap in outcome.swaps if swap.version in learnt]
    for task in _binary_tasks(findings.tasks):
        plot_auc(folder / f"auc_{task}.png", task, findings.points, swaps_at_examples)
    plot_latency(folder / "latency.png", outcome.answers, outcome.swaps)
    plot_hit_rate(folder / "cache_hits.png", outcome.hits)
    index = folder / "index.html"
    with replacing(index) as file:
        file.write(page("graft demo", _body(folder, findings, command)).encode())
    return index


def _body(folder: Path, findings: Findings, command: str) -> str:
    """What the page says, with the pictures of `folder`."""
    return _BODY.substitute(
        verdict=_verdict(findings.faults),
        lead=html.escape(_lead(findings)),
        quality=_quality_table(findings),
        age=_age(findings.summary.served_age_examples),
        auc_pictures="".join(
            figure(folder / f"auc_{task}.png", f"Progressive AUC of {task} against examples")
            for task in _binary_tasks(findings.tasks)
        ),
        serving_pictures=figure(folder / "latency.png", "Latency of score requests over time, swaps marked")
        + figure(folder / "cache_hits.png", "Share of examples whose teacher logit lay in the cache"),
        baselines=baselines_section(findings.summary.baselines, findings.tasks),
        path=table(_path_rows(findings)),
        about=table(_about_rows(findings, command)),
    )


def _verdict(faults: Sequence[str]) -> str:
    if not faults:
        return '<p class="good">Every impression became exactly one example; every request was answered.</p>'
    return "".join(f'<p class="bad">{html.escape(fault)}</p>' for fault in faults)


def _lead(findings: Findings) -> str:
    s = findings.summary
    return (
        f"{s.impressions:,} impressions ({findings.data_note}) went through Kafka, the join, the teacher's cache and "
        f"the learner; {s.swaps} new versions were swapped into the scorer while it answered {s.requests:,} requests."
    )


def _quality_table(findings: Findings) -> str:
    gains = "student &minus; control", "served: student &minus; control"
    head = ["task", "metric", *(ARM_NAMES[arm] for arm in ALL_ARMS), *gains]
    return table([_quality_row(task, findings.summary) for task in findings.tasks], head)


def _quality_row(task: TaskSpec, summary: Summary) -> tuple[str, ...]:
    values = (summary.auc if task.kind == "binary" else summary.rmse)[task.name]
    gains = (values[STUDENT], values[CONTROL]), (values[SERVED_STUDENT], values[SERVED_CONTROL])
    return html.escape(task.name), MEASURES[task.kind], *map(shown, values.values()), *(_gain(*both) for both in gains)


def _gain(student: float | None, control: float | None) -> str:
    return f"{student - control:+.4f}" if student is not None and control is not None else NOTHING


def _age(examples: float | None) -> str:
    return "none has served" if examples is None else f"{examples:,.0f} examples behind, on average"


def _path_rows(findings: Findings) -> list[tuple[str, ...]]:
    s, outcome, joined = findings.summary, findings.outcome, findings.outcome.joined
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


def _about_rows(findings: Findings, command: str) -> list[tuple[str, ...]]:
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in findings.seconds.items())
    return [
        ("data", html.escape(findings.data_note)),
        ("command", f"<code>{html.escape(command)}</code>"),
        ("machine", html.escape(MACHINE)),
        ("time", f"{findings.summary.seconds:.0f} s: {html.escape(phases)}"),
    ]


def _binary_tasks(tasks: Sequence[TaskSpec]) -> list[str]:
    """The names of the tasks that have an AUC, in the project's order."""
    return [task.name for task in tasks if task.kind == "binary"]
