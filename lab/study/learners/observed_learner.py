"""The learner of a study's cell: the learner itself, fed from a log in memory, of which every prediction is kept.

Shapes: B rows, N examples learnt, K tasks, A arms, T teacher tasks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.log.study_log import StudyLog
from student.evaluate.arms import ARMS
from student.evaluate.evaluation import ProgressiveEvaluation
from student.learn.batch import Encoded, encode, raise_first
from student.learn.bootstrap import BootstrapRows
from student.learn.learner import Learner
from student.learn.setup import LearnerSetup


class Arriving(NamedTuple):
    """N impressions with the features and teacher logits that are known when they come, for served predictions.

    `known_N`: for each the place of the first impression that comes when its labels are known.
    """

    log: StudyLog
    logit_NT: NDArray[np.float32]
    known_N: NDArray[np.intp]


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
