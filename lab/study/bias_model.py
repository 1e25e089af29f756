"""A plain model: one intercept, one bias for each user and one for each item, learnt by Bayes' rule row by row.

Shapes: N examples, K tasks, E users or items, 3 for intercept, user and item.
"""

import numpy as np
from numpy.typing import NDArray

from lab.study.log_arrays import LogArrays

_PRIOR_VARIANCES = 1.0, 0.4, 0.6
"""Of intercept, user and item: in log odds, of a regression in deviations of its label."""
_LEAST_SLOPE = 0.02  # of the sigmoid: a label that was all but certain still has a finite noise


class BiasModel:
    """A Gaussian for each bias, moved by assumed-density filtering (Opper 1998); a regression has noise of variance 1.

    It sees neither features nor teacher.
    """

    def __init__(self, log: LogArrays) -> None:
        self._log = log
        self._binary_K = log.binary_K
        tasks, (users, items) = len(log.binary_K), log.entities
        self._place_N3 = log.places()
        self._mean_EK = np.zeros((1 + users + items, tasks))
        self._variance_EK = np.repeat(_PRIOR_VARIANCES, [1, users, items])[:, None] * np.ones(tasks)
        self._count_K, self._sum_K, self._square_K = np.zeros((3, tasks))

    def predict(self, n: int) -> NDArray[np.float64]:
        """Logits and values [K] of example `n`: of a binary task the logit of the mean probability, nearly."""
        eta_K, variance_3K = self._eta(n)
        logit_K = eta_K / np.sqrt(1 + np.pi * variance_3K.sum(axis=0) / 8)  # MacKay 1992
        mean_K, deviation_K = self._unit()
        return np.where(self._binary_K, logit_K, mean_K + deviation_K * eta_K)

    def learn(self, n: int) -> None:
        """Move the three biases of example `n` by its labels, which are known now."""
        label_K = self._log.label_NK[n]
        known_K = np.isfinite(label_K)
        label_K, weight = np.where(known_K, label_K, 0.0), self._log.weight_N[n]
        self._count_K += weight * known_K
        self._sum_K += weight * label_K
        self._square_K += weight * label_K**2
        eta_K, variance_3K = self._eta(n)
        chance_K = 1 / (1 + np.exp(-eta_K))
        slope_K = np.maximum(chance_K * (1 - chance_K), _LEAST_SLOPE)
        mean_K, deviation_K = self._unit()
        noise_K = np.where(self._binary_K, 1 / slope_K, 1.0) / weight
        error_K = np.where(self._binary_K, (label_K - chance_K) / slope_K, (label_K - mean_K) / deviation_K - eta_K)
        gain_3K = np.where(known_K, variance_3K / (variance_3K.sum(axis=0) + noise_K), 0.0)
        self._mean_EK[self._place_N3[n]] += gain_3K * error_K
        self._variance_EK[self._place_N3[n]] *= 1 - gain_3K

    def _eta(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sum of the three means [K], and their variances [3, K]."""
        place_3 = self._place_N3[n]
        return self._mean_EK[place_3].sum(axis=0), self._variance_EK[place_3]

    def _unit(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation [K] of the labels so far; 0 and 1 before the second label."""
        count_K = np.maximum(self._count_K, 1)
        mean_K = self._sum_K / count_K
        variance_K = self._square_K / count_K - mean_K**2
        return mean_K, np.where(variance_K > 1e-12, np.sqrt(np.maximum(variance_K, 1e-12)), 1.0)
