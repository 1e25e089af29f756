"""Writes what a study has found: study.html with the scores of every model, study.md, headline.json and pictures."""

import html
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from lab.page import MACHINE, MEASURES, NOTHING, figure, page, sentences, shown, table
from lab.study.findings.answer import answer
from lab.study.findings.comparison import Comparison, Difference, student_of
from lab.study.findings.findings import AS_INPUT_AND_PROFILES, PERMUTED, TEACHER_AS_INPUT, Findings, Series
from lab.study.findings.headline import calibrations, headline
from lab.study.findings.plots import plot_all
from lab.study.findings.tables import origin, tables
from lab.study.learners.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
from lab.study.learners.worker import FILE
from lab.study.planning import PlannedStudy
from lab.study.studied import Studied, sampled
from runtime.folder import replacing
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_SAYS = {
    STUDENT: "",
    CONTROL: "the same without its teacher",
    TEACHER: "its logit alone",
    TEACHER_AS_INPUT: "the control with the teacher's logits as inputs: it calls the teacher at every request",
    AS_INPUT_AND_PROFILES: "the same with the teacher's profiles",
    PERMUTED: "the student with the logits of other rows",
    LR: "regression on shrunken means, refit every 250 examples",
    LR_TEACHER: "the same with the teacher's logits",
    BAYES_BIAS: "Bayesian biases of user and item alone",
    ONLINE_LR: "online regression on all that a student sees",
}


class Better(FrozenModel):
    """How much better the student is, AUC more or RMSE less; 95 % of the draws of users, None with too few users."""

    mean: float
    low: float | None
    high: float | None


class Judged(FrozenModel):
    """One way of judging: AUC of a binary task, RMSE of a regression; None where it is undefined."""

    score: float | None
    student_better: Better | None
    """None for the student itself."""


class Ways(FrozenModel):
    """The same model, judged in both ways."""

    row_by_row: Judged
    served: Judged


ScoresByTask = Mapping[str, Mapping[str, Ways]]
"""Task -> model -> its scores."""


def model_scores(comparison: Comparison) -> ScoresByTask:
    """Over all that the baseline has learnt."""
    return {
        task.name: {series.name: _ways(comparison, series, task) for series in comparison.findings.series()}
        for task in comparison.findings.tasks
    }


def scores_table(task: TaskSpec, scores: Mapping[str, Ways]) -> str:
    """One task's scores as HTML, a row a model."""
    name, better = html.escape(task.name), "student better by"
    head = [f"{name}: {MEASURES[task.kind]}", "what it is", "row by row", better, "served", better]
    return table([_row(model, ways) for model, ways in scores.items()], head)


def _ways(comparison: Comparison, series: Series, task: TaskSpec) -> Ways:
    return Ways(
        row_by_row=_judged(comparison, series, task, served=False),
        served=_judged(comparison, series, task, served=True),
    )


def _judged(comparison: Comparison, series: Series, task: TaskSpec, *, served: bool) -> Judged:
    student, better = student_of(comparison.findings), None
    if series != student:
        better = comparison.difference(student, series, "all", task, served=served)
    return Judged(
        score=comparison.score(series, "all", task, served=served),
        student_better=better and Better(**better._asdict()),
    )


def _row(model: str, ways: Ways) -> tuple[str, ...]:
    cells = [(shown(way.score), _better(way.student_better)) for way in (ways.row_by_row, ways.served)]
    return html.escape(model), html.escape(_SAYS[model]), *(cell for both in cells for cell in both)


def _better(better: Better | None) -> str:
    return NOTHING if better is None else Difference(**better.model_dump()).text()


class Report(NamedTuple):
    """What the command prints: lines for people, or the summary as JSON."""

    lines: list[str]
    summary: dict[str, Any]


def write_report(out: Path, found: Studied, planned: PlannedStudy, name: str, command: str) -> Report:
    """Write all files to `out`, in place of earlier ones. `name`: the project's; `command`: what made it."""
    learnt = [*_without_bootstrap(found.findings), *found.of_logits, *planned.left_out]
    said = [*sampled(found.log), *answer(found.comparison, planned.inputs), *learnt]
    calibrated = calibrations(found.findings, found.log, found.predictions)
    summary = {**headline(found.findings, name, calibrated), "answer": said}
    if found.log.drawn:
        summary = _against_drawn(summary)
    pictures = plot_all(found.comparison, out)
    files = {
        "headline.json": json.dumps(summary, indent=1) + "\n",
        "study.md": f"{origin(found.findings, command)}\n\n### Answer\n\n{_listed(said)}\n\n"
        f"{tables(found.findings, calibrated)}",
        "study.html": page(f"graft study: {name}", _body(found, said, pictures, name, command)),
    }
    for file_name, text in files.items():
        with replacing(out / file_name) as file:
            file.write(text.encode())
    lines = [*said, "", f"with plots: {out}/study.html; all tables: {out}/study.md"]
    if (out / FILE).exists():
        lines.append(f"what the learners left out and why: {out}/{FILE}")
    return Report(lines, summary)


def _without_bootstrap(findings: Findings) -> list[str]:
    base = findings.variant(findings.grid.baseline)
    steps = [result.bootstrap_steps for result in findings.results if result.variant == base.name]
    if not base.bootstrap or any(steps):
        return []
    why = "the teacher scores fewer than 100 rows of the tables' users and items, or was trained on events of the log"
    if not findings.has_teacher:
        why = "graft.toml has no [teacher]"
    return [f"The student learnt without a bootstrap: {why}."]


def _against_drawn(summary: Any) -> Any:
    """The summary, in which no AUC against drawn negatives is called `auc`."""
    if isinstance(summary, dict):
        return {f"{k}_against_drawn" if k == "auc" else k: _against_drawn(value) for k, value in summary.items()}
    return [_against_drawn(value) for value in summary] if isinstance(summary, list) else summary


def _listed(said: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in said)


def _body(found: Studied, said: list[str], pictures: list[Path], name: str, command: str) -> str:
    findings = found.findings
    scores = model_scores(found.comparison)
    about = [
        ("command", f"<code>{html.escape(command)}</code>"),
        ("graft", version("graft")),
        ("machine", html.escape(MACHINE)),
    ]
    return (
        f"<h1>{html.escape(name)}: what its teacher is worth</h1>\n{sentences(said)}\n"
        f"{''.join(figure(picture, picture.stem) for picture in pictures)}"
        f'<h2>Every model</h2>\n<p class="note">{_WAYS}</p>\n'
        f"{''.join(scores_table(task, scores[task.name]) for task in findings.tasks)}\n"
        f"<h2>What made it</h2>\n{table(about)}\n"
    )


_WAYS = (
    "<em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it knows those "
    "that were known when its impression came. Intervals hold 95 % of draws of the users."
)
