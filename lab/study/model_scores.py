"""The scores of every model that a study compares, in both ways, and how much better the student is."""

import html
from collections.abc import Mapping

from lab.page import MEASURES, NOTHING, shown, table
from lab.study.comparison import Comparison, Difference, student_of
from lab.study.findings import AS_INPUT_AND_PROFILES, PERMUTED, TEACHER_AS_INPUT, Series
from lab.study.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
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
