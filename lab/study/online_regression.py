"""A plain model: online logistic regression on the features that a student sees, as in River.

Shapes: N examples, D dense columns, C categorical columns, R table rows, K tasks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.study.log_arrays import LogArrays
from student.versions.inputs import RunningMoments

_RATE = 0.05


class OnlineRegression:
    """A weight per dense column and per category, learnt in one pass by Adagrad (Duchi et al. 2011).

    Dense columns are normalised by their running moments. Regression tasks have no value.
    """

    def __init__(self, log: LogArrays, table_rows: int) -> None:
        self._log = log
        dense, tasks = log.dense_ND.shape[1], len(log.binary_K)
        self._moments = RunningMoments(dense)
        self._bias_K, self._dense_DK, self._table_RK = (
            np.zeros(tasks),
            np.zeros((dense, tasks)),
            np.zeros((table_rows, tasks)),
        )
        self._squares = [np.full_like(w, 1e-6) for w in (self._bias_K, self._dense_DK, self._table_RK)]

    def predict(self, n: int) -> NDArray[np.float64]:
        """Logits [K] of example `n`; NaN for a regression."""
        return np.where(self._log.binary_K, self._logits(n), np.nan)

    def learn(self, n: int) -> None:
        """One step on the labels of example `n`."""
        logit_K, label_K = self._logits(n), self._log.label_NK[n]
        self._moments.update(self._log.dense_ND[n : n + 1])
        learns_K = self._log.binary_K & np.isfinite(label_K)
        gradient_K = np.where(learns_K, 1 / (1 + np.exp(-logit_K)) - label_K, 0.0) * self._log.weight_N[n]
        squares_bias_K, squares_DK, squares_RK = self._squares
        _adagrad(self._bias_K, squares_bias_K, gradient_K)
        _adagrad(self._dense_DK, squares_DK, np.outer(self._normalised(n), gradient_K))
        row_C, times_C = np.unique(self._log.table_row_NC[n], return_counts=True)
        weight_CK, squares_CK = self._table_RK[row_C], squares_RK[row_C]
        _adagrad(weight_CK, squares_CK, np.outer(times_C, gradient_K))
        self._table_RK[row_C], squares_RK[row_C] = weight_CK, squares_CK

    def _normalised(self, n: int) -> NDArray[np.float64]:
        return np.asarray((self._log.dense_ND[n] - self._moments.mean) / self._moments.std, np.float64)

    def _logits(self, n: int) -> NDArray[np.float64]:
        table_K = self._table_RK[self._log.table_row_NC[n]].sum(axis=0)
        return np.asarray(self._bias_K + self._normalised(n) @ self._dense_DK + table_K)


def _adagrad(weight: NDArray[Any], squares: NDArray[Any], gradient: NDArray[Any]) -> None:
    squares += gradient**2
    weight -= _RATE * gradient / np.sqrt(squares)
