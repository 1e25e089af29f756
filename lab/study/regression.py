"""The reference for the control: online logistic regression on the target's own features.

Shapes: B rows, N examples learnt, D dense columns, C categorical columns, R table rows, K tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.study.slices import Scores, scores_of
from lab.study.study_log import StudyLog
from stream.events import Example
from stream.examples import ExampleRecord
from student.learn.batch import encoded
from student.learn.setup import LearnerSetup
from student.versions.hashing import embedding_rows
from student.versions.normalizer import RunningMoments

_RATE = 0.05
_BATCH = 1  # each row is learnt before the next: in batches of 16 it loses .005 of AUC


class Regression:
    """A weight per dense column and per category, learnt in one pass by Adagrad (Duchi et al. 2011), as in River.

    Dense columns are normalised by their running moments. Regression tasks have no value.
    """

    arms = ("regression",)

    def __init__(self, setup: LearnerSetup, log: StudyLog) -> None:
        self.setup = setup
        self.examples = self.steps = 0
        self._examples = log.examples
        self._moments = RunningMoments(len(setup.spec.dense_names))
        tasks, dense, rows = len(setup.tasks), len(setup.spec.dense_names), setup.student.table_rows
        self._bias_K, self._dense_DK, self._table_RK = (
            np.zeros(tasks),
            np.zeros((dense, tasks)),
            np.zeros((rows, tasks)),
        )
        self._squares = [np.full_like(w, 1e-6) for w in (self._bias_K, self._dense_DK, self._table_RK)]
        self._labels: list[NDArray[np.float32]] = []
        self._values: list[NDArray[np.float32]] = []

    def learn_until(self, examples: int) -> None:
        """Predict, then learn, batch by batch, up to that many examples or the end of the log."""
        while self.examples < min(examples, len(self._examples)):
            batch = self._examples[self.examples : min(self.examples + _BATCH, examples)]
            dense_BD, row_BC, label_BK = self._encoded(batch)
            logit_BK = self._logits(dense_BD, row_BC)
            self._labels.append(label_BK)
            self._values.append(self._visible(logit_BK))
            self._moments.update(dense_BD)
            self._step(self._normalised(dense_BD), row_BC, self._gradient(logit_BK, label_BK))
            self.examples += len(batch)
            self.steps += 1

    def scores_of(self, records: Sequence[ExampleRecord], _logit_BT: NDArray[np.float32]) -> Scores:
        """Its scores on these rows, as it is now."""
        dense_BD, row_BC, label_BK = self._encoded([record.example for record in records])
        value_BK = self._visible(self._logits(dense_BD, row_BC))
        return scores_of(self.setup.tasks, self.arms, label_BK, value_BK[:, :, None])

    def seen(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels [N, K] and the predictions made before them [N, K, 1]."""
        return np.concatenate(self._labels), np.concatenate(self._values)[:, :, None]

    def served(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The labels [N, K], and no prediction: it is judged row by row alone."""
        label_NK, value_NKA = self.seen()
        return label_NK, np.full_like(value_NKA, np.nan)

    def _encoded(
        self, examples: Sequence[Example]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Dense columns, table rows and labels, as the learner encodes them."""
        batch = encoded(self.setup, examples, np.empty((len(examples), 0), np.float32))
        row_BC = embedding_rows(batch.category_BC, self.setup.student.table_rows)
        return batch.dense_BD, row_BC, batch.label_BK

    def _normalised(self, dense_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        normalised_BD: NDArray[np.float32] = (dense_BD - self._moments.mean) / self._moments.std
        return normalised_BD

    def _logits(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64]) -> NDArray[np.float64]:
        logit_BK: NDArray[np.float64] = (
            self._bias_K + self._normalised(dense_BD) @ self._dense_DK + self._table_RK[row_BC].sum(axis=1)
        )
        return logit_BK

    def _visible(self, logit_BK: NDArray[np.float64]) -> NDArray[np.float32]:
        binary_K = np.array([task.kind == "binary" for task in self.setup.tasks])
        return np.where(binary_K, logit_BK, np.nan).astype(np.float32)

    def _gradient(self, logit_BK: NDArray[np.float64], label_BK: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of the mean log loss with respect to the logits; 0 for missing labels and regressions."""
        gradient_BK = (1 / (1 + np.exp(-logit_BK)) - label_BK) / len(label_BK)
        return np.where(np.isnan(self._visible(logit_BK)) | np.isnan(label_BK), 0.0, gradient_BK)

    def _step(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64], gradient_BK: NDArray[np.float64]) -> None:
        row_N, place = np.unique(row_BC, return_inverse=True)
        table_NK = np.zeros((len(row_N), gradient_BK.shape[1]))
        np.add.at(table_NK, place.reshape(row_BC.shape), gradient_BK[:, None, :])
        squares_bias_K, squares_DK, squares_RK = self._squares
        _adagrad(self._bias_K, squares_bias_K, gradient_BK.sum(axis=0))
        _adagrad(self._dense_DK, squares_DK, dense_BD.T @ gradient_BK)
        weight_NK, squares_NK = self._table_RK[row_N], squares_RK[row_N]
        _adagrad(weight_NK, squares_NK, table_NK)
        self._table_RK[row_N], squares_RK[row_N] = weight_NK, squares_NK


def _adagrad(weight: NDArray[Any], squares: NDArray[Any], gradient: NDArray[Any]) -> None:
    squares += gradient**2
    weight -= _RATE * gradient / np.sqrt(squares)
