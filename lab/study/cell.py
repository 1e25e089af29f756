"""One cell of a grid: a learner learns the log, its predictions are kept, and their scores are computed.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from threadpoolctl import threadpool_limits

from lab.study.arriving import Arriving
from lab.study.direct import DirectArm
from lab.study.hidden_features import HiddenFeatures
from lab.study.plan import Cell
from lab.study.references import References
from lab.study.slices import Scores, of_slices, scores_of, slices_of
from lab.study.study_log import StudyLog
from lab.study.teachers import Unshown
from runtime.errors import InvalidInputError
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
    learnt of labels that were known when its impression came. `held_out` are of the last 20 % after so many examples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """Wall clock of all that it took, with the teacher's work where no cell had done it before."""
    learning_seconds: float = 0.0
    """Of them those from the first example on."""
    scores: dict[str, Scores]
    served: dict[str, Scores] = {}
    held_out: dict[int, Scores] = {}


class Predictions(NamedTuple):
    """What was judged: of N examples the labels, and what each arm said row by row and when it was served."""

    label_NK: NDArray[np.float32]
    seen_NKA: NDArray[np.float32]
    served_NKA: NDArray[np.float32]


class Teaching(NamedTuple):
    """All that a student learns from its teacher; `logit_NT` also of examples that are only scored."""

    logit_NT: NDArray[np.float32]
    unshown: Unshown | None = None
    day_zero: DayZeroRows | None = None


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
    member = slices_of(log.first(learner.examples).new_ids(), cell.windows, cell.traffic)
    tasks, arms = cell.project.tasks, learner.arms
    result = Result(
        variant=cell.variant.name,
        seed=cell.seed,
        share=cell.share,
        examples=learner.examples,
        steps=learner.steps,
        bootstrap_steps=bootstrap_steps,
        learning_seconds=learning_seconds,
        scores=of_slices(member, tasks, arms, kept.label_NK, kept.seen_NKA),
        served=of_slices(member, tasks, arms, kept.label_NK, kept.served_NKA),
        held_out=held_out,
    )
    return result, kept


def _learnt(cell: Cell, learner: "ObservedLearner | References", rows: int) -> dict[int, Scores]:
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


def _learner(cell: Cell, log: StudyLog, teaching: Teaching, arriving: Arriving) -> "ObservedLearner | References":
    setup = replace(cell.project.learner_setup(log.spec), priors=cell.variant.priors, guarded=cell.variant.guarded)
    if cell.is_reference:
        return References(setup, log, teaching.logit_NT, arriving)
    return ObservedLearner(setup, log, teaching, arriving, cell.variant.direct, cell.events)


class ObservedLearner(Learner):
    """The learner itself, fed from a log in memory; every prediction that it is judged on is kept.

    `direct`: the teacher tasks that the student's served heads learn themselves. `events`: the examples of the log
    that it may learn; all if None.
    """

    arms = ARMS

    def __init__(
        self,
        setup: LearnerSetup,
        log: StudyLog,
        teaching: Teaching,
        arriving: Arriving,
        direct: Collection[str] = (),
        events: int | None = None,
    ) -> None:
        self._direct = direct
        super().__init__(setup)
        self.steps = 0
        self._kept = _Kept(setup.tasks)
        self.evaluation = self._kept
        self._log = log
        self._teaching = teaching
        self._arriving = arriving
        self._records = log.first(events).records
        self._requests = Requests(arriving.known_N)
        self._answers: list[NDArray[np.float32]] = []

    def learn_until(self, examples: int) -> None:
        """Learn the first `examples` of the log, some at a time.

        Every impression is scored when it comes, before those are learnt whose labels are known only later.
        """
        while self.examples < min(examples, len(self._records)):
            rows = slice(self.examples, min(self.examples + min(self.room, _AT_A_TIME), examples, len(self._records)))
            self._answer(self._requests.before(rows.stop))
            unshown = self._teaching.unshown.of(rows.start, rows.stop) if self._teaching.unshown else None
            learnt = [record.example for record in self._records[rows]]
            self.learn(learnt, self._teaching.logit_NT[rows], unshown)
        if self.examples == len(self._records) and len(self._open):
            self._take_step()  # what is left is judged too

    def _take_step(self) -> bool:
        self.steps += 1
        return super()._take_step()

    def scores_of(self, rows: slice) -> Scores:
        """The scores of the arms, as they are now, on these rows of the log, which are not learnt."""
        examples = [record.example for record in self._log.records[rows]]
        batch = encoded(self.setup, examples, self._teaching.logit_NT[rows])
        value_BKA = self.predictions(batch, [example.item_id for example in examples])
        return scores_of(self.setup.tasks, ARMS, batch.label_BK, value_BKA)

    def served(self) -> NDArray[np.float32]:
        """The predictions of the examples learnt that were made when their impressions came [N, K, A]."""
        self._answer(self._requests.before(self.examples))
        return np.concatenate(self._answers)[: self.examples]

    def _answer(self, rows: slice) -> None:
        """Keep the predictions of these impressions, as they are now."""
        examples = [record.example for record in self._arriving.log.records[rows]]
        if examples:
            batch = encoded(self.setup, examples, self._arriving.logit_NT[rows])
            self._answers.append(self.predictions(batch, [example.item_id for example in examples]))

    def _new_student(self) -> Arm:
        return DirectArm(self.setup, self._direct) if self._direct else super()._new_student()

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made before them [N, K, A]."""
        return np.concatenate(self._kept.labels), np.concatenate(self._kept.values)


class Requests:
    """The impressions of a log in their order, each of which is given out once.

    `known_N`: for each the first that comes when its labels are known.
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
