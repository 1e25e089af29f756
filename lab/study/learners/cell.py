"""One cell of a grid: a learner learns the log, its predictions are kept, and their scores are computed.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from lab.study.learners.observed_learner import Arriving, ObservedLearner, Teaching
from lab.study.learners.plain_models import PlainModels
from lab.study.learners.plan import Cell
from lab.study.log.slices import Scores, of_slices, slices_of
from lab.study.log.study_log import StudyLog
from runtime.errors import InvalidInputError
from runtime.frozen_model import FrozenModel


class Result(FrozenModel):
    """What a cell found: AUCs and RMSEs by slice, task and arm.

    `scores` are of predictions made just before their example was learnt; `served` of those made with what had been
    learnt of labels that were known when its impression came.
    """

    variant: str
    seed: int
    share: float = 1.0
    """Of the users whose examples were learnt."""
    examples: int
    steps: int
    """Of each arm over the log: both take the same."""
    bootstrap_steps: int
    """Of the student alone, on the teacher alone, before the first example."""
    seconds: float = 0.0
    """Wall clock of the whole cell, with the teacher's work where no cell before it had done that."""
    learning_seconds: float = 0.0
    """The part of `seconds` from the first example on."""
    scores: dict[str, Scores]
    served: dict[str, Scores] = Field(default={})


class Predictions(NamedTuple):
    """Of N examples the labels, and what each arm predicted row by row and when it was served."""

    label_NK: NDArray[np.float32]
    seen_NKA: NDArray[np.float32]
    served_NKA: NDArray[np.float32]


def run_cell(cell: Cell, log: StudyLog, teaching: Teaching, arriving: Arriving) -> tuple[Result, Predictions]:
    """Learn the log, or the cell's part of it, in the order and the steps of `graft student train`.

    `arriving` has all impressions of that part at least.
    """
    torch.set_num_threads(1)
    if cell.variant.teacher_as_input:
        names = [f"teacher_{task.name}" for task in cell.project.needed_teacher.tasks]
        log = log.with_inputs(names, teaching.logit_NT)
        arriving = arriving._replace(log=arriving.log.with_inputs(names, arriving.logit_NT))
    learner = _learner(cell, log, teaching, arriving)
    bootstrap_steps = 0
    if isinstance(learner, ObservedLearner) and teaching.day_zero:
        bootstrap_steps = cell.project.bootstrap.steps
        learner.bootstrap(*teaching.day_zero, bootstrap_steps)
    started = time.monotonic()
    with threadpool_limits(1):  # as many cells as cores learn at once: more threads would wait for each other
        learner.learn_until(min(cell.events or len(log.records), len(log.records)))
        if not learner.examples:
            raise InvalidInputError(f"{cell.name}: no example is left; leave this share out of the grid's thin")
        kept = Predictions(*learner.seen(), learner.served())
    learning_seconds = time.monotonic() - started
    learnt = log.first(learner.examples)
    member = slices_of(learnt.new_ids(), cell.windows)
    tasks, arms = cell.project.tasks, learner.arms
    result = Result(
        variant=cell.variant.name,
        seed=cell.seed,
        share=cell.share,
        examples=learner.examples,
        steps=learner.steps,
        bootstrap_steps=bootstrap_steps,
        learning_seconds=learning_seconds,
        scores=of_slices(member, tasks, arms, kept.label_NK, kept.seen_NKA, learnt.weights),
        served=of_slices(member, tasks, arms, kept.label_NK, kept.served_NKA, learnt.weights),
    )
    return result, kept


def _learner(cell: Cell, log: StudyLog, teaching: Teaching, arriving: Arriving) -> ObservedLearner | PlainModels:
    setup = cell.project.learner_setup(log.spec)
    if cell.is_plain:
        return PlainModels(setup, log, teaching.logit_NT, arriving)
    return ObservedLearner(setup, log, teaching, arriving, cell.events)
