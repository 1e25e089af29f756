"""One cell of a grid: a learner learns the log, its predictions are kept, and their scores are computed.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lab.study.direct import DirectArm
from lab.study.plan import Cell
from lab.study.regression import Regression
from lab.study.slices import Scores, of_slices, scores_of, slices_of
from lab.study.study_log import StudyLog
from lab.study.teachers import Unshown
from stream.examples import ExampleRecord
from student.evaluate.arms import ARMS
from student.evaluate.evaluation import ProgressiveEvaluation
from student.learn.arm import Arm
from student.learn.batch import encoded
from student.learn.bootstrap import DayZeroRows
from student.learn.learner import Learner
from student.learn.setup import LearnerSetup

_AT_A_TIME = 4
"""Examples that are learnt together; the requests that come while they close are answered without them."""

HELD_OUT_SHARE = 0.2
"""The last part of the log, by time, which is scored after each traffic size; never after it was learnt from."""


class Result(BaseModel):
    """What a cell found: AUCs and RMSEs by slice, task and arm.

    `scores` are of predictions made just before their example was learnt; `served` of those made with what had been
    learnt when its impression came, as the endpoint makes them. `held_out` are of the last 20 % after so many examples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    seed: int
    examples: int
    steps: int
    """Of each arm over the log: both take the same."""
    bootstrap_steps: int
    """Of the student alone, on the teacher alone, before the first example."""
    scores: dict[str, Scores]
    served: dict[str, Scores] = {}
    held_out: dict[int, Scores] = {}


class Teaching(NamedTuple):
    """All that a student learns from its teacher; `logit_NT` also of examples that are only scored."""

    logit_NT: NDArray[np.float32]
    unshown: Unshown | None = None
    day_zero: DayZeroRows | None = None


def run_cell(cell: Cell, log: StudyLog, teaching: Teaching) -> Result:
    """Learn the log, or the cell's part of it, in the order and the steps of `graft student train`."""
    torch.set_num_threads(1)
    if cell.variant.teacher_as_input:
        log = log.with_inputs([f"teacher_{task.name}" for task in cell.project.teacher.tasks], teaching.logit_NT)
    learnt = min(cell.events or len(log.records), len(log.records))
    first_held_out = len(log.records) - round(HELD_OUT_SHARE * len(log.records))
    learner = _learner(cell, log.first(learnt), teaching)
    bootstrap_steps = 0
    if isinstance(learner, ObservedLearner) and teaching.day_zero:
        bootstrap_steps = cell.project.bootstrap.steps
        learner.bootstrap(*teaching.day_zero, bootstrap_steps)
    held_out = {}
    for size in sorted(size for size in cell.traffic if size <= min(learnt, first_held_out)):
        learner.learn_until(size)
        held_out[size] = learner.scores_of(log.records[first_held_out:], teaching.logit_NT[first_held_out:])
    learner.learn_until(learnt)
    member = slices_of(log.new_items()[: learner.examples], cell.windows, cell.traffic)
    return Result(
        variant=cell.variant.name,
        seed=cell.seed,
        examples=learner.examples,
        steps=learner.steps,
        bootstrap_steps=bootstrap_steps,
        scores=of_slices(member, cell.project.tasks, learner.arms, *learner.seen()),
        served=of_slices(member, cell.project.tasks, learner.arms, *learner.served()),
        held_out=held_out,
    )


def _learner(cell: Cell, log: StudyLog, teaching: Teaching) -> "ObservedLearner | Regression":
    setup = cell.project.learner_setup(log.spec)
    if not cell.variant.learner:
        return Regression(setup, log)
    return ObservedLearner(setup, log, teaching, cell.variant.direct)


class ObservedLearner(Learner):
    """The learner itself, fed from a log in memory; every prediction that it is judged on is kept.

    `direct`: the teacher tasks that the student's served heads learn themselves.
    """

    arms = ARMS

    def __init__(self, setup: LearnerSetup, log: StudyLog, teaching: Teaching, direct: Collection[str] = ()) -> None:
        self._direct = direct
        super().__init__(setup)
        self.steps = 0
        self._kept = _Kept(setup.tasks)
        self.evaluation = self._kept
        self._teaching = teaching
        self._records = log.records
        self._requests = Requests(log.records, max(task.window_seconds for task in setup.tasks))
        self._answers: list[NDArray[np.float32]] = []

    def learn_until(self, examples: int) -> None:
        """Learn the first `examples` of the log, some at a time.

        Every impression is scored when it comes, before those are learnt whose last one closes after that.
        """
        while self.examples < examples:
            rows = self.examples, min(self.examples + min(self.room, _AT_A_TIME), examples)
            records = self._records[slice(*rows)]
            self._answer(self._requests.before(records))
            unshown = self._teaching.unshown.of(*rows) if self._teaching.unshown else None
            self.learn([record.example for record in records], self._teaching.logit_NT[slice(*rows)], unshown)
        if self.examples == len(self._records) and len(self._open):
            self._take_step()  # what is left is judged too

    def _take_step(self) -> bool:
        self.steps += 1
        return super()._take_step()

    def scores_of(self, records: Sequence[ExampleRecord], logit_BT: NDArray[np.float32]) -> Scores:
        """The scores of the arms, as they are now, on these rows, which are not learnt."""
        examples = [record.example for record in records]
        batch = encoded(self.setup, examples, logit_BT)
        value_BKA = self.predictions(batch, [example.item_id for example in examples])
        return scores_of(self.setup.tasks, ARMS, batch.label_BK, value_BKA)

    def served(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made when their impressions came [N, K, A]."""
        self._answer(self._requests.rest())
        return np.concatenate(self._kept.labels), np.concatenate(self._answers)[: self.examples]

    def _answer(self, rows: slice) -> None:
        """Keep the predictions of these rows of the log, as they are now."""
        examples = [record.example for record in self._requests.records[rows]]
        if examples:
            batch = encoded(self.setup, examples, self._teaching.logit_NT[rows])
            self._answers.append(self.predictions(batch, [example.item_id for example in examples]))

    def _new_student(self) -> Arm:
        return DirectArm(self.setup, self._direct) if self._direct else super()._new_student()

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made before them [N, K, A]."""
        return np.concatenate(self._kept.labels), np.concatenate(self._kept.values)


class Requests:
    """The impressions of a log in their order, which is that of their closing: all have one window, the longest."""

    def __init__(self, records: Sequence[ExampleRecord], window_seconds: float) -> None:
        self.records = records
        self._window_ms = 1000 * window_seconds
        self._next = 0

    def before(self, learnt: Sequence[ExampleRecord]) -> slice:
        """Those that came before the last of the examples to be learnt closed, and were not given out yet."""
        closed_ms = max(record.example.event_time_ms for record in learnt) + self._window_ms
        last = self._next
        while last < len(self.records) and self.records[last].example.event_time_ms < closed_ms:
            last += 1
        return self._given(last)

    def rest(self) -> slice:
        """Those that were not given out yet."""
        return self._given(len(self.records))

    def _given(self, last: int) -> slice:
        rows, self._next = slice(self._next, last), last
        return rows


class _Kept(ProgressiveEvaluation):
    """Keeps the rows themselves instead of their histograms."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__(tasks)
        self.labels: list[NDArray[np.float32]] = []
        self.values: list[NDArray[np.float32]] = []

    def update(self, label_BK: NDArray[np.float32], value_BKA: NDArray[np.float32], *_ids: Any) -> None:
        """Keep B predictions."""
        self.labels.append(label_BK)
        self.values.append(value_BKA)
