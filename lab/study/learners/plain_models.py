"""What a student must be better than: models without a student, on the same log and judged on the same predictions.

Shapes: N examples, D dense columns, C categorical columns, K tasks, T teacher tasks, F columns of a regression, A plain
models.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from lab.study.log.study_log import Arriving, StudyLog
from student.learn.batch import encoded
from student.learn.setup import LearnerSetup
from student.versions.served_posterior import seen_of
from student.versions.served_tensors import RunningMoments, embedding_rows


class LogArrays(NamedTuple):
    """What a plain model reads, as the learner encodes it. NaN: no label, no logit."""

    binary_K: NDArray[np.bool_]
    dense_ND: NDArray[np.float32]
    table_row_NC: NDArray[np.int64]
    user_N: NDArray[np.intp]
    """Users numbered from 0 in the order in which they come; so are the items."""
    item_N: NDArray[np.intp]
    label_NK: NDArray[np.float64]
    logit_NT: NDArray[np.float64]
    weight_N: NDArray[np.float64]
    """As how many impressions each example counts."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.user_N)

    @property
    def entities(self) -> tuple[int, int]:
        """How many users and how many items there are."""
        return int(self.user_N.max(initial=-1)) + 1, int(self.item_N.max(initial=-1)) + 1

    def places(self) -> NDArray[np.intp]:
        """For each example where all, its user and its item stand in one list of them [N, 3]: all, users, items."""
        users, _ = self.entities
        return np.stack([np.zeros(self.rows, np.intp), 1 + self.user_N, 1 + users + self.item_N], axis=1)


def arrays_of(setup: LearnerSetup, log: StudyLog, logit_NT: NDArray[np.float32]) -> LogArrays:
    """The whole log with the teacher's logits of it; without its profiles, as the control sees the dense columns."""
    batch = encoded(setup, log.examples, logit_NT)
    seen_D = seen_of(setup.spec, sees_teacher=False) > 0
    return LogArrays(
        binary_K=np.array([task.kind == "binary" for task in setup.tasks]),
        dense_ND=batch.dense_BD[:, seen_D],
        table_row_NC=embedding_rows(batch.category_BC, setup.student.table_rows),
        user_N=_numbered(example.user_id for example in log.examples),
        item_N=_numbered(example.item_id for example in log.examples),
        label_NK=batch.label_BK.astype(np.float64),
        logit_NT=logit_NT.astype(np.float64),
        weight_N=log.weights.astype(np.float64),
    )


def _numbered(ids: Iterable[int | str]) -> NDArray[np.intp]:
    number: dict[int | str, int] = {}
    return np.array([number.setdefault(one, len(number)) for one in ids], np.intp)


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
