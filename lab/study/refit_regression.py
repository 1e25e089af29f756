"""A plain model: logistic or ridge regression on running means of user and item, fitted anew every 250 examples.

Shapes: N examples, D dense columns, K tasks, T teacher tasks, P columns.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from lab.study.log_arrays import LogArrays

_EVERY = 250
_PSEUDO_LABELS = 5.0
_OWN = 4
"""Columns of user and item: their two means, then their two counts."""


class _Fit(NamedTuple):
    """A fitted model of one task; a column without a value counts as its mean, `center_P`."""

    center_P: NDArray[np.float64]
    weight_P: NDArray[np.float64]
    intercept: float

    def value(self, column_P: NDArray[np.float64]) -> float:
        """The logit or value of one row."""
        known_P = np.isfinite(column_P)
        if not known_P.all():
            column_P = np.where(known_P, column_P, self.center_P)
        return float(column_P @ self.weight_P) + self.intercept


class RefitRegression:
    """Columns: of user and item the shrunken mean label less that of all, and log(1 + labels); the dense columns.

    A mean is shrunken by 5 labels of the running mean of all, and is in log odds where the task is binary. With
    `teacher` all of its logits are columns too. Until the first fit a prediction is the mean of all, or the logit of
    the task's teacher reference, and both deviations.
    """

    def __init__(self, log: LogArrays, reference_columns: tuple[int | None, ...], *, teacher: bool) -> None:
        self._log = log
        self._references = reference_columns if teacher else (None,) * len(reference_columns)
        tasks, (users, items) = len(log.binary_K), log.entities
        self._place_N3 = log.places()
        self._sum_EK, self._count_EK = np.zeros((2, 1 + users + items, tasks))
        logit_NT = log.logit_NT if teacher else log.logit_NT[:, :0]
        self._shared_NP = np.concatenate([log.dense_ND.astype(np.float64), logit_NT], axis=1)
        self._own_KNP = np.zeros((tasks, log.rows, _OWN))
        self._learnt: list[int] = []
        self._fits: list[_Fit | None] = [None] * tasks

    def predict(self, n: int) -> NDArray[np.float64]:
        """Logits and values [K] of example `n`, from all labels learnt; its columns are kept for `learn`."""
        self._own_KNP[:, n], level_K = self._own(n)
        return np.array([self._value(n, k, level) for k, level in enumerate(level_K.tolist())])

    def learn(self, n: int) -> None:
        """Count the labels of example `n`, which was predicted, and fit anew after every 250th."""
        label_K = self._log.label_NK[n]
        known_K = np.isfinite(label_K)
        weight = self._log.weight_N[n]
        self._sum_EK[self._place_N3[n]] += weight * np.where(known_K, label_K, 0.0)
        self._count_EK[self._place_N3[n]] += weight * known_K
        self._learnt.append(n)
        if len(self._learnt) % _EVERY == 0:
            self._fits = [self._fitted(k) for k in range(len(self._fits))]

    def _value(self, n: int, k: int, level: float) -> float:
        own_P, fit = self._own_KNP[k, n], self._fits[k]
        if fit is not None:
            return fit.value(np.concatenate([own_P, self._shared_NP[n]]))
        column = self._references[k]
        logit = np.nan if column is None else self._log.logit_NT[n, column]
        return float(own_P[0] + own_P[1] + (logit if np.isfinite(logit) else level))

    def _own(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The columns of user and item for each task [K, 4], and the level of all labels [K]."""
        binary_K = self._log.binary_K
        sum_3K, count_3K = self._sum_EK[self._place_N3[n]], self._count_EK[self._place_N3[n]]
        # One label of each class is added to all of them (Laplace); a regression has a mean of 0 before its first.
        mean_K = (sum_3K[0] + binary_K) / np.maximum(count_3K[0] + 2 * binary_K, 1)
        level_3K = np.empty_like(sum_3K)
        level_3K[0] = mean_K
        # Exactly the mean of all where there is no label: a column of what rounding leaves would get a huge weight.
        level_3K[1:] = mean_K + (sum_3K[1:] - count_3K[1:] * mean_K) / (count_3K[1:] + _PSEUDO_LABELS)
        share_3B = level_3K[:, binary_K]
        level_3K[:, binary_K] = np.log(share_3B / (1 - share_3B))
        return np.concatenate([level_3K[1:] - level_3K[0], np.log1p(count_3K[1:])]).T, level_3K[0]

    def _fitted(self, k: int) -> _Fit | None:
        """The model of all examples learnt so far; None where they have no label, or all have one."""
        learnt_B = np.array(self._learnt)
        learnt_B = learnt_B[np.isfinite(self._log.label_NK[learnt_B, k])]
        label_B = self._log.label_NK[learnt_B, k]
        if not len(label_B) or label_B.min() == label_B.max():
            return None
        column_BP = np.concatenate([self._own_KNP[k, learnt_B], self._shared_NP[learnt_B]], axis=1)
        known_BP = np.isfinite(column_BP)
        count_P = np.maximum(known_BP.sum(axis=0), 1)
        center_P = np.where(known_BP, column_BP, 0).sum(axis=0) / count_P
        deviation_BP = np.where(known_BP, column_BP - center_P, 0)
        variance_P = (deviation_BP**2).sum(axis=0) / count_P
        scale_P = np.where(variance_P > 0, np.sqrt(variance_P), 1.0)
        model = LogisticRegression(solver="newton-cholesky") if self._log.binary_K[k] else Ridge()
        weight_B = self._log.weight_N[learnt_B]
        model.fit(deviation_BP / scale_P, label_B, sample_weight=None if (weight_B == 1).all() else weight_B)
        weight_P = np.ravel(model.coef_) / scale_P
        return _Fit(center_P, weight_P, float(np.ravel(model.intercept_)[0] - center_P @ weight_P))
