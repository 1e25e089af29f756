"""Finds what could refute the demo's student: a study of the demo's own first examples, by the study's own machinery.

Imports Feast, whose metrics folder stages would inherit: it comes after them. Shapes: N examples, K tasks.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from features.store import compile_spec
from graft.progress import Advance
from graft.project import Project
from lab.demo.baselines import LABEL_DELAY_SECONDS, Baselines, Compared
from lab.study.grid import PLAIN_VARIANT, Grid, TeacherChange, Variant
from lab.study.memory_store import NO_REDIS
from lab.study.model_scores import model_scores
from lab.study.plain_models import PLAIN_MODELS
from lab.study.studied import Studied, studied
from lab.study.study_log import write_log
from stream.log.examples import ExampleRecord
from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.history import Point
from student.evaluate.progress import EVERY_EXAMPLES

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


def compare(project: Project, records: Sequence[ExampleRecord], folder: Path, advance: Advance) -> Compared:
    """Learn `records`, at least one, with each baseline, one process for each core; `folder` keeps what they find."""
    spec = compile_spec(project.repo, NO_REDIS, project.features)
    write_log(folder / "log", records)
    jobs = os.cpu_count() or 1
    found = studied(_GRID, project, spec, folder / "log", out=folder, jobs=jobs, advance=advance)
    scores = model_scores(found.comparison)
    baselines = Baselines(examples=found.findings.examples(), scores=scores, verdict=found.verdict)
    return Compared(baselines, list(_points(found)))


def _points(found: Studied) -> Iterator[Point]:
    """The metrics of the plain models, row by row, at the examples at which a learner's history has points."""
    kept = found.predictions(PLAIN_VARIANT, 1)
    assert kept is not None
    evaluation = ProgressiveEvaluation(found.findings.tasks, PLAIN_MODELS)
    users = [str(example.user_id) for example in found.log.examples]
    user_N = np.unique(users, return_inverse=True)[1].astype(np.uint64)
    weight_N = np.array([example.weight for example in found.log.examples], np.float32)
    for first in range(0, len(kept.label_NK), EVERY_EXAMPLES):
        rows = slice(first, first + EVERY_EXAMPLES)
        old_2B = np.zeros((2, len(user_N[rows])), np.bool_)  # new ids are not asked for
        columns = kept.label_NK[rows], kept.seen_NKA[rows], user_N[rows], old_2B
        evaluation.update(*columns, weight_B=weight_N[rows])
        yield Point(first + len(user_N[rows]), evaluation.slices())
