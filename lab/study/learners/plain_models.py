"""What a student must be better than: models without a student, on the same log and judged on the same predictions.

Shapes: N examples learnt, K tasks, A plain models.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lab.study.learners.observed_learner import Arriving
from lab.study.learners.regressions import BiasModel, LogArrays, OnlineRegression, RefitRegression, arrays_of
from lab.study.log.study_log import StudyLog
from student.learn.setup import LearnerSetup

LR, LR_TEACHER, BAYES_BIAS, ONLINE_LR = "lr", "lr_teacher", "bayes_bias", "online_lr"
PLAIN_MODELS = (LR, LR_TEACHER, BAYES_BIAS, ONLINE_LR)
"""In the order of axis A."""

SAYS = {
    LR: "logistic regression on shrunken means and counts of user and item and the dense columns, fitted anew every "
    "250 examples; ridge regression for a regression task",
    LR_TEACHER: "the same with the teacher's logits as columns",
    BAYES_BIAS: "Bayesian biases of user and item alone",
    ONLINE_LR: "online logistic regression on all that a student sees, by Adagrad",
}


class PlainModel(Protocol):
    """Learns examples in their order; each is predicted before it is learnt."""

    def predict(self, n: int) -> NDArray[np.float64]:
        """Logits (binary) or values (regression) [K] of example `n`, from all that was learnt."""
        ...

    def learn(self, n: int) -> None:
        """Learn the labels of example `n`."""
        ...


class PlainModels:
    """All plain models on one log. They have no seed."""

    arms = PLAIN_MODELS

    def __init__(self, setup: LearnerSetup, log: StudyLog, logit_NT: NDArray[np.float32], arriving: Arriving) -> None:
        self._setup = setup
        self._log = arrays_of(setup, log, logit_NT)
        self._arriving = arriving
        self._models = self._new_models(self._log)
        self._value_NKA = np.full((self._log.rows, len(setup.tasks), len(PLAIN_MODELS)), np.nan, np.float32)
        self.examples = self.steps = 0

    def learn_until(self, examples: int) -> None:
        """Predict, then learn, example by example, up to that many or the end of the log."""
        for n in range(self.examples, min(examples, self._log.rows)):
            self._value_NKA[n] = _predicted(self._models, n)
            for model in self._models:
                model.learn(n)
            self.examples = self.steps = n + 1

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made just before each was learnt [N, K, A]."""
        return self._log.label_NK[: self.examples].astype(np.float32), self._value_NKA[: self.examples]

    def served(self) -> NDArray[np.float32]:
        """The predictions of the same examples from what was known when their impressions came [N, K, A]."""
        log = arrays_of(self._setup, self._arriving.log.first(self.examples), self._arriving.logit_NT[: self.examples])
        return predictions(self._new_models(log), self._arriving.known_N[: self.examples])

    def _new_models(self, log: LogArrays) -> list[PlainModel]:
        columns = self._setup.reference_columns
        return [
            RefitRegression(log, columns, teacher=False),
            RefitRegression(log, columns, teacher=True),
            BiasModel(log),
            OnlineRegression(log, self._setup.student.table_rows),
        ]


def predictions(models: Sequence[PlainModel], known_N: NDArray[np.intp]) -> NDArray[np.float32]:
    """What each model says of each example [N, K, A] when its impression comes, in the order of the log."""
    values, learnt = [], 0
    for n in range(len(known_N)):
        while learnt < n and known_N[learnt] <= n:
            for model in models:
                model.learn(learnt)
            learnt += 1
        values.append(_predicted(models, n))
    return np.stack(values)


def _predicted(models: Sequence[PlainModel], n: int) -> NDArray[np.float32]:
    return np.stack([model.predict(n) for model in models], axis=1).astype(np.float32)
