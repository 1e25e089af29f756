"""What could refute the demo's student: a study of the demo's own first examples, with the study's own machinery.

Shapes: N examples, K tasks, A references.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from features.store import compile_spec
from graft.progress import Advance
from graft.project import Project
from lab.study.comparison import Difference, student_of
from lab.study.findings import Series
from lab.study.grid import REFERENCE_VARIANT, Grid, TeacherChange, Variant
from lab.study.references import REFERENCES
from lab.study.studied import NO_REDIS, Studied, studied
from lab.study.study_log import write_log
from stream.examples import ExampleRecord
from stream.tasks import TaskSpec
from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.history import Point
from student.evaluate.progress import EVERY_EXAMPLES

LABEL_DELAY_SECONDS = 3_600
"""After which served predictions know labels, as in the study's headline."""

_GRID = Grid(
    seeds=1,
    baseline="student",
    label_delay_seconds=LABEL_DELAY_SECONDS,
    variants=[
        Variant(name="student", bootstrap=True),
        Variant(name="permuted", bootstrap=True, teacher=TeacherChange(permuted=True)),
        Variant(name="teacher_as_input", teacher_as_input=True, without=["*"]),
    ],
)


class _Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Better(_Numbers):
    """How much better the student is, AUC more or RMSE less; 95 % of the draws of users, None with too few users."""

    mean: float
    low: float | None
    high: float | None


class Judged(_Numbers):
    """One way of judging: AUC of a binary task, RMSE of a regression; None where it is undefined."""

    score: float | None
    student_better: Better | None
    """None for the student itself."""


class Ways(_Numbers):
    """The same model, judged in both ways."""

    row_by_row: Judged
    served: Judged


class Baselines(_Numbers):
    """The student, learnt again over the first `examples`, beside all that could be better than it."""

    examples: int
    scores: Mapping[str, Mapping[str, Ways]]
    """Task -> model -> its scores."""
    verdict: list[str]


class Compared(NamedTuple):
    """The baselines' numbers, and the curves of the references."""

    baselines: Baselines
    points: Sequence[Point]


def compare(project: Project, records: Sequence[ExampleRecord], folder: Path, advance: Advance) -> Compared:
    """Learn `records`, at least one, with each baseline, one process for each core; `folder` keeps what they find."""
    spec = compile_spec(project.repo, NO_REDIS, project.features)
    write_log(folder / "log", records)
    jobs = os.cpu_count() or 1
    found = studied(_GRID, project, spec, folder / "log", out=folder, jobs=jobs, advance=advance)
    scores = {
        task.name: {series.name: _ways(found, series, task) for series in found.findings.series()}
        for task in project.tasks
    }
    baselines = Baselines(examples=found.findings.examples(), scores=scores, verdict=found.verdict)
    return Compared(baselines, list(_points(found)))


def _ways(found: Studied, series: Series, task: TaskSpec) -> Ways:
    return Ways(
        row_by_row=_judged(found, series, task, served=False),
        served=_judged(found, series, task, served=True),
    )


def _judged(found: Studied, series: Series, task: TaskSpec, *, served: bool) -> Judged:
    student, comparison = student_of(found.findings), found.comparison
    better: Difference | None = None
    if series != student:
        better = comparison.difference(student, series, "all", task, served=served)
    return Judged(
        score=comparison.score(series, "all", task, served=served),
        student_better=better and Better(**better._asdict()),
    )


def _points(found: Studied) -> Iterator[Point]:
    """The metrics of the references, row by row, at the examples at which a learner's history has points."""
    kept = found.predictions(REFERENCE_VARIANT, 1)
    assert kept is not None
    evaluation = ProgressiveEvaluation(found.findings.tasks, REFERENCES)
    users = [str(example.user_id) for example in found.log.examples]
    user_N = np.unique(users, return_inverse=True)[1].astype(np.uint64)
    for first in range(0, len(kept.label_NK), EVERY_EXAMPLES):
        rows = slice(first, first + EVERY_EXAMPLES)
        old_2B = np.zeros((2, len(user_N[rows])), np.bool_)  # new ids are not asked for
        evaluation.update(kept.label_NK[rows], kept.seen_NKA[rows], user_N[rows], old_2B)
        yield Point(first + len(user_N[rows]), evaluation.slices())
