"""One cell of a grid: a learner learns the log, its predictions are kept, and their scores are computed.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from lab.study.learners.plain_models import PlainModels
from lab.study.learners.plan import Cell
from lab.study.log.study_log import Arriving, Scores, StudyLog, of_slices, slices_of
from runtime.errors import InvalidInputError
from runtime.frozen_model import FrozenModel
from student.evaluate.arms import ARMS
from student.evaluate.evaluation import ProgressiveEvaluation
from student.learn.batch import Encoded, encode, raise_first
from student.learn.bootstrap import BootstrapRows
from student.learn.learner import Learner
from student.learn.setup import LearnerSetup

_AT_A_TIME = 4
"""Examples that are learnt together; requests that come while their labels become known are answered without them."""


class Teaching(NamedTuple):
    """All that a student learns from its teacher; `logit_NT` also of examples that are only scored."""

    logit_NT: NDArray[np.float32]
    day_zero: BootstrapRows | None = None


class ObservedLearner(Learner):
    """The learner itself, fed from a log in memory; every prediction that it is judged on is kept.

    `events`: the examples of the log that it may learn; all if None.
    """

    arms = ARMS

    def __init__(
        self,
        setup: LearnerSetup,
        log: StudyLog,
        teaching: Teaching,
        arriving: Arriving,
        events: int | None = None,
    ) -> None:
        super().__init__(setup)
        self.steps = 0
        self._kept = _Kept(setup.tasks)
        self.evaluation = self._kept
        self._teaching = teaching
        self._arriving = arriving
        # All at once: of four rows at a time numpy's calls cost more than the rows.
        self._log = _encoded(setup, log)
        self._coming = self._log if arriving.log is log else _encoded(setup, arriving.log)
        self._learnable = min(len(log.records), events or len(log.records))
        self._requests = Requests(arriving.known_N)
        self._answers: list[NDArray[np.float32]] = []

    def learn_until(self, examples: int) -> None:
        """Learn the first `examples` of the log, some at a time.

        Every impression is scored when it comes, before those are learnt whose labels are known only later.
        """
        while self.examples < min(examples, self._learnable):
            rows = slice(self.examples, min(self.examples + min(self.room, _AT_A_TIME), examples, self._learnable))
            self._answer(self._requests.before(rows.stop))
            self.learn_encoded(self._log.part(rows, rows), self._teaching.logit_NT[rows])
        if self.examples == self._learnable and len(self._open):
            self._take_step()  # what is left is judged too

    def _take_step(self) -> bool:
        self.steps += 1
        return super()._take_step()

    def served(self) -> NDArray[np.float32]:
        """The predictions of the examples learnt that were made when their impressions came [N, K, A]."""
        self._answer(self._requests.before(self.examples))
        return np.concatenate(self._answers)[: self.examples]

    def _answer(self, rows: slice) -> None:
        """Keep the predictions of these impressions, as they are now."""
        part = self._coming.part(rows, rows)
        if part.faults:
            self._answers.append(self._said_of(part, self._arriving.logit_NT[rows]))

    def _said_of(self, part: Encoded, logit_BT: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each arm says of these rows now [B, K, A]."""
        return self.predictions(part.with_logits(logit_BT, self.setup.logits_from_ms), part.item_B)

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made before them [N, K, A]."""
        return np.concatenate(self._kept.labels), np.concatenate(self._kept.values)


class Requests:
    """The impressions of a log in their order, each of which is given out once.

    `known_N`: for each the place of the first one that comes when its labels are known.
    """

    def __init__(self, known_N: NDArray[np.intp]) -> None:
        self._known_N = known_N
        self._next = 0

    def before(self, learnt: int) -> slice:
        """Those that come before the labels of the first `learnt` examples are known, and were not given out yet."""
        last = max(self._next, int(self._known_N[learnt - 1]) if learnt else 0)
        rows, self._next = slice(self._next, last), last
        return rows


class _Kept(ProgressiveEvaluation):
    """Keeps the rows themselves instead of their histograms."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__(tasks)
        self.labels: list[NDArray[np.float32]] = []
        self.values: list[NDArray[np.float32]] = []

    def update(self, label_BK: NDArray[np.float32], value_BKA: NDArray[np.float32], *_ids: Any, **_more: Any) -> None:
        """Keep B predictions."""
        self.labels.append(label_BK)
        self.values.append(value_BKA)


def _encoded(setup: LearnerSetup, log: StudyLog) -> Encoded:
    """The whole log; InvalidInputError for an example that cannot be learnt."""
    found = encode(setup, log.examples)
    raise_first(found.faults)
    return found


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
