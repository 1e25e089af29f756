"""Writes what a study has found: study.html with the scores of every model, study.md, headline.json and pictures."""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from lab.page import MACHINE, MEASURES, NOTHING, figure, page, sentences, shown, table
from lab.study.findings.answer import answer
from lab.study.findings.comparison import Comparison, Difference, student_of
from lab.study.findings.findings import (
    AS_INPUT_AND_PROFILES,
    FEWEST_SEEDS,
    PERMUTED,
    SERVED,
    TEACHER_AS_INPUT,
    Findings,
    Interval,
    Series,
)
from lab.study.findings.headline import JUDGED, Calibration, calibrations, harm_of_permuted, headline
from lab.study.findings.plots import plot_all
from lab.study.grid import PLAIN_VARIANT
from lab.study.learners.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR, PLAIN_MODELS, SAYS
from lab.study.learners.worker import FILE
from lab.study.log.study_log import EARLY, NEW_ITEMS, NEW_USERS
from lab.study.planning import PlannedStudy
from lab.study.studied import Studied, sampled
from runtime.folder import replacing
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_NONE = "-"
_ARMS = STUDENT, CONTROL, TEACHER
_SLICES = ("row by row", ""), ("served", SERVED)


def origin(findings: Findings, command: str) -> str:
    """What made the tables: command, version of graft, machine, the seeds of each variant, when labels are known."""
    of: dict[int, list[str]] = {}
    for variant in findings.grid.variants:
        of.setdefault(findings.seeds(variant.name), []).append(variant.name)
    seeds = "; ".join(f"{count} of {', '.join(names)}" for count, names in sorted(of.items(), reverse=True))
    return (
        f"`{command}`\n\ngraft {version('graft')}; {MACHINE}. Seeds from 1 on: {seeds}. Intervals are Student's, 95 %, "
        f"over the seeds, in bold where they hold no 0; below {FEWEST_SEEDS} seeds there is none. *Row by row*: each "
        f"prediction knows all labels before it. *Served*: it knows those that were known when its impression came, "
        f"{findings.grid.label_delay_seconds:,.0f} s, or at the close of the longest window, after theirs.\n\n"
        "Plain models, which have no seed: "
        f"{'; '.join(f'`{name}`: {says}' for name, says in SAYS.items())}."
    )


def tables(findings: Findings, calibrated: Sequence[Calibration]) -> str:
    """All tables: the headline, calibration, thin logs, and one for each question of the grid."""
    sections = [*_headline(findings), *_harm(findings), *_calibrations(calibrated)]
    sections += [*_thin(findings), *_questions(findings)]
    return "\n\n".join(sections) + "\n"


def _headline(findings: Findings) -> Iterator[str]:
    """For each task what every series scores in each slice, and how much better the student is."""
    parts = ["all", *(f"all, {new}" for new in (NEW_ITEMS, NEW_USERS)), EARLY, *findings.parts()]
    for task in findings.tasks:
        best = ["best possible, whole stream"] if task.name in findings.best_auc else []
        for way, prefix in _SLICES:
            title = f"`{task.name}`, {findings.grid.baseline}, {way}"
            yield f"### Headline: {findings.measure(task.name)} of {title}"
            header = ["examples", *(series.name for series in findings.series()), *best]
            yield _table(header, (_scores_row(findings, task.name, f"{prefix}{part}") for part in parts))
            others = [
                series
                for series in findings.series()
                if (series.name, series.variant) != (STUDENT, findings.grid.baseline)
            ]
            others = [series for series in others if series.name != PERMUTED]
            yield f"### Headline: the student better by, {title}"
            header = ["examples", *(f"than {series.name}" for series in others), "transferability"]
            yield _table(header, (_better_row(findings, task.name, f"{prefix}{part}", others) for part in parts))


def _scores_row(findings: Findings, task: str, part: str) -> list[str]:
    name = part.removeprefix(SERVED)
    row = [name, *(_mean(findings.mean(s.variant, part, task, s.arm)) for s in findings.series())]
    if task in findings.best_auc:
        row.append(f"{findings.best_auc[task]:.4f}" if name == "all" else _NONE)
    return row


def _better_row(findings: Findings, task: str, part: str, others: Sequence[Series]) -> list[str]:
    base = findings.grid.baseline
    gains = [findings.gain(base, part, task, (series.variant, series.arm)) for series in others]
    share = findings.transferability(part, task)
    return [part.removeprefix(SERVED), *map(gain_text, gains), _NONE if share is None else f"{share:.1f}"]


def _harm(findings: Findings) -> Iterator[str]:
    """What a permuted teacher costs."""
    if findings.permuted is None:
        return
    parts = ["all", EARLY, *findings.parts()]
    yield "### A permuted teacher: its student - control, row by row"
    yield _table(["task", *parts, "worst window"], (_harm_row(findings, task.name, parts) for task in findings.tasks))


def _harm_row(findings: Findings, task: str, parts: Sequence[str]) -> list[str]:
    harm = harm_of_permuted(findings, task)
    gains = [gain_text(findings.gain(findings.permuted, part, task)) for part in parts]
    return [task, *gains, _NONE if harm is None else f"{-harm[0]:+.4f}"]


def _calibrations(calibrated: Sequence[Calibration]) -> Iterator[str]:
    if not calibrated:
        return
    yield "### Calibration, and the scores of rows whose user and item had never come"
    arms = [f"{what}, {arm}" for what in ("ECE", "unseen: min / 1 % / median / 99 % / max") for arm in JUDGED]
    yield _table(["task", "", "unseen rows", *arms], map(_calibration_row, calibrated))


def _calibration_row(found: Calibration) -> list[str]:
    ranges = [" / ".join(f"{score:.3f}" for score in found.unseen[arm].values()) for arm in found.unseen]
    errors = [f"{found.ece[arm]:.4f}" for arm in JUDGED]
    way = _SLICES[found.served][0]
    return [found.task, way, f"{found.unseen_rows:,}", *errors, *(ranges or [_NONE] * len(JUDGED))]


def _thin(findings: Findings) -> Iterator[str]:
    """By the share of the users whose examples were learnt: what the baseline and the plain models score."""
    found = [findings.at(share) for share in findings.shares()]
    arms = [(arm, findings.grid.baseline) for arm in _ARMS] + [(arm, PLAIN_VARIANT) for arm in PLAIN_MODELS]
    header = ["users", "draws", "examples", *(arm for arm, _ in arms), "student - control", f"student - {LR_TEACHER}"]
    for task, (way, prefix) in product(findings.tasks if found else (), _SLICES):
        yield f"### Thin logs: {findings.measure(task.name)} of `{task.name}`, {findings.grid.baseline}, {way}"
        yield _table(header, (_thin_row(thin, task.name, f"{prefix}all", arms) for thin in found))


def _thin_row(findings: Findings, task: str, part: str, arms: Sequence[tuple[str, str]]) -> list[str]:
    base = findings.grid.baseline
    counts = [result.examples for result in findings.results if result.variant == base]
    return [
        f"{100 * findings.share:g} %",
        str(len(counts)) if findings.share < 1 else _NONE,
        f"{sum(counts) / max(1, len(counts)):,.0f}",
        *(_mean(findings.mean(variant, part, task, arm)) for arm, variant in arms),
        gain_text(findings.gain(base, part, task)),
        gain_text(findings.gain(base, part, task, (PLAIN_VARIANT, LR_TEACHER))),
    ]


def _questions(findings: Findings) -> Iterator[str]:
    """For each question and task every variant that asks it: its gain, and how much better each of its arms is."""
    base = findings.grid.baseline
    than = [f"{arm} - {base}'s{way}" for arm in (STUDENT, CONTROL) for way in ("", ", served")]
    for question in dict.fromkeys(v.question for v in findings.grid.variants if v.question):
        variants = [v for v in findings.grid.variants if question == v.question]
        examples = f"{findings.grid.events or findings.results[0].examples:,} examples"
        for task in findings.tasks:
            yield f"### {question}: {findings.measure(task.name)} of `{task.name}` ({examples})"
            header = ["variant", "seeds", "student / control / teacher", "student - control", EARLY, *than]
            names = [base, *(v.name for v in variants if v.name != base)]
            yield _table(header, (_question_row(findings, name, task.name) for name in names))


def _question_row(findings: Findings, name: str, task: str) -> list[str]:
    base = findings.grid.baseline
    slices = product((STUDENT, CONTROL), ("all", f"{SERVED}all"))
    better = [findings.better((name, arm), (base, arm), slice_, task) for arm, slice_ in slices]
    return [
        f"**{name}** {findings.variant(name).says}".strip(),
        str(findings.seeds(name)),
        " / ".join(_mean(findings.mean(name, "all", task, arm)) for arm in _ARMS),
        *(gain_text(findings.gain(name, slice_, task)) for slice_ in ("all", EARLY)),
        *([_NONE] * len(better) if name == base else map(gain_text, better)),
    ]


def gain_text(gain: Interval | None) -> str:
    """``+.012 [.008, .016]``; in bold where the interval holds no 0."""
    if gain is None:
        return _NONE
    if not gain.is_known:
        return f"{gain.mean:+.4f}"
    text = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"**{text}**" if gain.excludes_zero else text


def _mean(value: Interval | None) -> str:
    return _NONE if value is None else f"{value.mean:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


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


class Judged(NamedTuple):
    """One way of judging: AUC of a binary task, RMSE of a regression; None where it is undefined."""

    score: float | None
    student_better: Difference | None
    """How much better the student is, AUC more or RMSE less; None for the student itself."""


class Ways(NamedTuple):
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
    return Ways(*(_judged(comparison, series, task, served=served) for served in (False, True)))


def _judged(comparison: Comparison, series: Series, task: TaskSpec, *, served: bool) -> Judged:
    student, better = student_of(comparison.findings), None
    if series != student:
        better = comparison.difference(student, series, "all", task, served=served)
    return Judged(comparison.score(series, "all", task, served=served), better)


def _row(model: str, ways: Ways) -> tuple[str, ...]:
    cells = [(shown(way.score), _better(way.student_better)) for way in (ways.row_by_row, ways.served)]
    return html.escape(model), html.escape(_SAYS[model]), *(cell for both in cells for cell in both)


def _better(better: Difference | None) -> str:
    return NOTHING if better is None else better.text()


class Report(NamedTuple):
    """What the command prints: lines for people, or the summary as JSON."""

    lines: list[str]
    summary: dict[str, Any]


def write_report(out: Path, found: Studied, planned: PlannedStudy, name: str, command: str) -> Report:
    """Write all files to `out`, in place of earlier ones. `name`: the project's; `command`: what made it."""
    learnt = [*_without_bootstrap(found.findings), *found.of_cut_off, *planned.left_out]
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
