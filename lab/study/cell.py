"""One cell of a grid: a learner learns the log, its predictions are kept, and their scores are computed.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from lab.study.arriving import Arriving
from lab.study.hidden_features import HiddenFeatures
from lab.study.observed_learner import ObservedLearner, Teaching
from lab.study.plain_models import PlainModels
from lab.study.plan import Cell
from lab.study.slices import Scores, of_slices, slices_of
from lab.study.study_log import StudyLog
from runtime.errors import InvalidInputError
from runtime.frozen_model import FrozenModel

HELD_OUT_SHARE = 0.2
"""The last part of the log, by time, which is scored after each traffic size; never after it was learnt from."""


class Result(FrozenModel):
    """What a cell found: AUCs and RMSEs by slice, task and arm.

    `scores` are of predictions made just before their example was learnt; `served` of those made with what had been
    learnt of labels that were known when its impression came. `held_out` are of the last 20 % after so many examples.
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
    held_out: dict[int, Scores] = Field(default={})


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
    hidden = HiddenFeatures(log.spec, cell.variant.hidden)
    log, arriving = hidden.of_log(log), arriving._replace(log=hidden.of_log(arriving.log))
    if cell.variant.teacher_as_input:
        names = [f"teacher_{task.name}" for task in cell.project.needed_teacher.tasks]
        log = log.with_inputs(names, teaching.logit_NT)
        arriving = arriving._replace(log=arriving.log.with_inputs(names, arriving.logit_NT))
    learner = _learner(cell, log, teaching, arriving)
    bootstrap_steps = 0
    if isinstance(learner, ObservedLearner) and teaching.day_zero:
        bootstrap_steps = cell.project.bootstrap.steps
        learner.bootstrap(*hidden.of_rows(teaching.day_zero), bootstrap_steps)
    started = time.monotonic()
    with threadpool_limits(1):  # as many cells as cores learn at once: more threads would wait for each other
        held_out = _learnt(cell, learner, len(log.records))
        kept = Predictions(*learner.seen(), learner.served())
    learning_seconds = time.monotonic() - started
    learnt = log.first(learner.examples)
    member = slices_of(learnt.new_ids(), cell.windows, cell.traffic)
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
        held_out=held_out,
    )
    return result, kept


def _learnt(cell: Cell, learner: ObservedLearner | PlainModels, rows: int) -> dict[int, Scores]:
    """Let it learn the cell's part of a log of so many rows; the held-out scores after each traffic size."""
    learnt = min(cell.events or rows, rows)
    first_held_out = rows - round(HELD_OUT_SHARE * rows)
    held_out = {}
    for size in sorted(size for size in cell.traffic if size <= min(learnt, first_held_out)):
        learner.learn_until(size)
        held_out[size] = learner.scores_of(slice(first_held_out, rows))
    learner.learn_until(learnt)
    if not learner.examples:
        raise InvalidInputError(f"{cell.name}: no example is left; leave this share out of the grid's thin")
    return held_out


def _learner(cell: Cell, log: StudyLog, teaching: Teaching, arriving: Arriving) -> ObservedLearner | PlainModels:
    setup = replace(cell.project.learner_setup(log.spec), priors=cell.variant.priors, guarded=cell.variant.guarded)
    if cell.is_plain:
        return PlainModels(setup, log, teaching.logit_NT, arriving)
    return ObservedLearner(setup, log, teaching, arriving, cell.variant.direct, cell.events)
