"""The formulas of the progressive metrics; docs/metrics.md lists them with their sources.

Shapes: B rows, H bins of scores, N bins of probabilities, U users.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.compute import compiled
from stream.tasks import TaskKind
from student.versions.manifest import ArmMetrics

CALIBRATION_BINS = 10
"""Bins of equal width over probabilities from 0 to 1."""


class Sums(NamedTuple):
    """The sums, over the same rows, from which all metrics but the AUCs follow."""

    rows: float
    label: float
    label_squared: float
    prediction: float
    """Of probabilities (binary) or values (regression)."""
    loss: float
    """Of log losses in nats (binary) or squared errors (regression)."""
    age: float
    """Of the examples between the version that predicted and the row; NaN where no version did."""


def arm_metrics(
    kind: TaskKind, sums: Sums, bin_3N: NDArray[np.float64], auc: float | None, gauc: float | None
) -> ArmMetrics:
    """All metrics of one arm on one task, over at least one row. `bin_3N`: see `expected_calibration_error`."""
    assert sums.rows > 0
    label_mean, prediction_mean, loss = (total / sums.rows for total in (sums.label, sums.prediction, sums.loss))
    age = None if np.isnan(sums.age) else sums.age / sums.rows
    if kind == "regression":
        return ArmMetrics(
            count=int(sums.rows),
            label_mean=label_mean,
            prediction_mean=prediction_mean,
            rmse=loss**0.5,
            r2=r_squared(sums),
            age_examples=age,
        )
    return ArmMetrics(
        count=int(sums.rows),
        positives=int(sums.label),
        label_mean=label_mean,
        prediction_mean=prediction_mean,
        auc=auc,
        gauc=gauc,
        log_loss=loss,
        normalized_entropy=normalized_entropy(loss, label_mean),
        calibration=sums.prediction / sums.label if sums.label else None,
        ece=expected_calibration_error(bin_3N),
        age_examples=age,
    )


def losses(kind: TaskKind, label_B: NDArray[np.float32], value_B: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log loss of a logit in nats, or the squared error of a value, per row; of arrays of any one shape."""
    label_B64, value_B64 = label_B.astype(np.float64), value_B.astype(np.float64)
    if kind == "regression":
        return (value_B64 - label_B64) ** 2
    return np.logaddexp(0, value_B64) - label_B64 * value_B64


def normalized_entropy(log_loss: float, base_rate: float) -> float | None:
    """Log loss over the entropy of the base rate (He et al. 2014, eq. 1): below 1 is better than always predicting it.

    None while all labels are of one class: that entropy is 0.
    """
    if not 0 < base_rate < 1:
        return None
    entropy = -base_rate * np.log(base_rate) - (1 - base_rate) * np.log(1 - base_rate)
    return log_loss / float(entropy)


def expected_calibration_error(bin_3N: NDArray[np.float64]) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    The rows of `bin_3N` are counts, positives and sums of predicted probabilities per bin of the prediction. The
    result is the mean over rows of their bin's |mean prediction - share of positives|.
    """
    count_N, positive_N, predicted_N = bin_3N
    return float(np.abs(predicted_N - positive_N).sum() / count_N.sum())


def r_squared(sums: Sums) -> float | None:
    """1 - squared error / squared deviation from the mean label of the same rows; None where no label differs.

    Below 0 for a prediction that is worse than that mean, which a progressive prediction could not know.
    """
    deviation = sums.label_squared - sums.label**2 / sums.rows
    if deviation <= _ROUNDING * sums.label_squared:
        return None
    return 1 - sums.loss / deviation


_ROUNDING = 1e-12
"""A variance below this share of the mean square is the rounding of float64 sums."""


def exact_auc(
    label_B: NDArray[np.float32], score_B: NDArray[np.float32], weight_B: NDArray[np.float32] | None = None
) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties half (Mann & Whitney 1947).

    `weight_B`: as how many rows each counts; None: as one. None when there are no positives or no negatives.
    """
    return grouped_auc(np.zeros(len(label_B), np.uint64), label_B, score_B, weight_B).mean()


def histogram_auc(histogram_2H: NDArray[np.integer]) -> float | None:
    """The AUC of scores known by their bin, from low to high: row 0 counts negatives, row 1 positives."""
    negatives, positives, right_pairs = _pairs(histogram_2H)
    return right_pairs / (negatives * positives) if negatives and positives else None


@compiled
def _pairs(histogram_2H: NDArray[np.integer]) -> tuple[float, float, float]:
    """Negatives, positives, and their pairs in the right order, ties half."""
    negatives, positives, right_pairs = 0.0, 0.0, 0.0
    for h in range(histogram_2H.shape[1]):
        right_pairs += histogram_2H[1, h] * (negatives + histogram_2H[0, h] / 2)
        negatives += histogram_2H[0, h]
        positives += histogram_2H[1, h]
    return negatives, positives, right_pairs


class GroupedAuc(NamedTuple):
    """A sum of per-user AUCs, each times the user's rows, and the sum of those rows; two such add up."""

    weighted: float = 0.0
    weight: float = 0.0

    def mean(self) -> float | None:
        """GAUC; None where no user has both a positive and a negative."""
        return self.weighted / self.weight if self.weight else None


def grouped_auc(
    user_B: NDArray[np.uint64],
    label_B: NDArray[np.float32],
    score_B: NDArray[np.float32],
    weight_B: NDArray[np.float32] | None = None,
) -> GroupedAuc:
    """Per-user AUCs weighted by the user's rows (GAUC: Zhu et al. 2017; Zhou et al. 2018).

    A user without both classes has no AUC and no weight. `weight_B`: as how many rows each counts; None: as one.
    """
    order_B = np.lexsort((score_B, user_B))
    count_B = np.ones(len(order_B), np.float32) if weight_B is None else weight_B[order_B]
    return GroupedAuc(*_sums_of_aucs(user_B[order_B], score_B[order_B], label_B[order_B] > 0.5, count_B))


@compiled
def _sums_of_aucs(
    user_B: NDArray[np.uint64],
    score_B: NDArray[np.float32],
    positive_B: NDArray[np.bool_],
    weight_B: NDArray[np.float32],
) -> tuple[float, float]:
    """The fields of `GroupedAuc` of rows in the order of users, and of each user's scores."""
    weighted, weight, row = 0.0, 0.0, 0
    while row < len(user_B):
        first = row
        positives, negatives, right_pairs = 0.0, 0.0, 0.0
        while row < len(user_B) and user_B[row] == user_B[first]:
            tied_positives, tied_negatives, tie = 0.0, 0.0, row
            while row < len(user_B) and user_B[row] == user_B[first] and (row == tie or score_B[row] == score_B[tie]):
                if positive_B[row]:
                    tied_positives += weight_B[row]
                else:
                    tied_negatives += weight_B[row]
                row += 1
            right_pairs += tied_positives * (negatives + tied_negatives / 2)
            positives += tied_positives
            negatives += tied_negatives
        if positives and negatives:
            weighted += (positives + negatives) * right_pairs / (positives * negatives)
            weight += positives + negatives
    return weighted, weight
