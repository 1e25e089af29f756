"""Writes what a study has found: study.html, study.md, headline.json and pictures."""

import html
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from lab.machine import MACHINE
from lab.page import figure, page, sentences, table
from lab.study.answer import answer
from lab.study.calibration import calibrations
from lab.study.findings import Findings
from lab.study.headline import headline
from lab.study.learner_log import FILE
from lab.study.model_scores import model_scores, scores_table
from lab.study.planning import PlannedStudy
from lab.study.plots import plot_all
from lab.study.studied import Studied, sampled
from lab.study.tables import origin, tables
from runtime.folder import replacing


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
