"""The losses of a step: each formula with its source, as its slope in every value of its head.

A missing label or logit is NaN; its slope is 0. An auxiliary head on the shared trunk that predicts the teacher, beside
served heads that learn hard labels alone, is the form of Khani et al. 2024 and Ranganathan et al. 2026; what that head
minimises is one of the losses below. In numpy: a step has some hundred values. Shapes: B rows of one step, J columns of
values and their targets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]


class Pointwise(NamedTuple):
    """What each of J columns minimises: the weighted mean over the rows that have a target, times `weight`.

    The first `shares` columns, and the `soft` ones after them: temperature^2 times the cross-entropy of
    sigmoid((value + offset) / temperature) against a target in [0, 1], in nats (Hinton et al. 2015, section 2: the
    square makes up for slopes that shrink with it; with a high temperature the slope is that of an eighth of the
    squared difference of the logits, section 2.1 for two classes with logits z / 2 and -z / 2). The target of a soft
    column is the teacher's logit, whose `soft_label` counts. The others: the squared error in units of `scale` around
    `offset`: of two logits it is twice Ba & Caruana 2014, equation 1, which halves it.
    """

    shares: int
    soft: int
    offset_J: Singles
    scale_J: Singles
    temperature_J: Singles
    weight_J: Singles

    def slope(self, value_BJ: Singles, target_BJ: Singles, counts_BJ: Singles) -> Singles:
        """Of each loss in each value [B, J]; `counts_BJ`: as how many each target counts."""
        probable = slice(0, self.shares + self.soft)
        softened, squared = slice(self.shares, probable.stop), slice(probable.stop, None)
        predicted_BJ, compared_BJ = value_BJ.copy(), target_BJ.copy()
        logit_BJ = value_BJ[:, probable] + self.offset_J[probable]
        predicted_BJ[:, probable] = soft_label(logit_BJ, self.temperature_J[probable])
        compared_BJ[:, softened] = soft_label(target_BJ[:, softened], self.temperature_J[softened])
        compared_BJ[:, squared] = (target_BJ[:, squared] - self.offset_J[squared]) / self.scale_J[squared]
        factor_J = self.weight_J * self.temperature_J
        factor_J[squared] *= 2
        is_missing_BJ = np.isnan(target_BJ)
        count_J = np.maximum(np.where(is_missing_BJ, 0, counts_BJ).sum(axis=0), 1).astype(np.float32)
        slope_BJ: Singles = (predicted_BJ - compared_BJ) * (factor_J / count_J) * counts_BJ
        slope_BJ[is_missing_BJ] = 0
        return slope_BJ


def soft_label(teacher_logit_X: Singles, temperature: float | Singles = 1.0) -> Singles:
    """sigmoid(teacher_logit / temperature): the probability that a binary head shall predict; NaN without a logit."""
    return _sigmoid(teacher_logit_X / np.float32(temperature))


def listwise_slope(logit_B: Singles, teacher_logit_B: Singles) -> Singles:
    """Of the cross-entropy, in nats, between the teacher's and the head's probabilities, normalised over the list.

    The loss is -sum_i q_i / Q * log(p_i / P) with q, p = sigmoid of the logits and Q, P their sums, so its slope is
    (p_i / P - q_i / Q) * (1 - p_i). Calibration-compatible (CLID, Gui et al. 2023, eq. 15; the same form for labels:
    Bai et al. 2023, eq. 12): p = q is a minimum. With a softmax of the head's logits for p_i / P it is not: there
    exp(logit), the odds, become proportional to q. The list is the rows of the step that have a logit: on a low-traffic
    stream hardly any user comes twice among them.
    """
    slope_B = np.zeros_like(logit_B)
    present_B = ~np.isnan(teacher_logit_B)
    if present_B.any():
        logit_N = logit_B[present_B]
        shares_2N = [_shares(-np.logaddexp(0, -each_N)) for each_N in (logit_N, teacher_logit_B[present_B])]
        slope_B[present_B] = (shares_2N[0] - shares_2N[1]) * _sigmoid(-logit_N)
    return slope_B


def pairwise_slope(value_B: Singles, teacher_B: Singles) -> Singles:
    """Of the mean cross-entropy over pairs of rows: sigmoid(value_i - value_j) against sigmoid(teacher_i - teacher_j).

    RankNet (Burges et al. 2005, equation 3) with the teacher's odds as the target order. Over all pairs of rows that
    have a logit, in nats; 0 when fewer than two have.
    """
    slope_B = np.zeros_like(value_B)
    present_B = ~np.isnan(teacher_B)
    value_N, teacher_N = value_B[present_B], teacher_B[present_B]
    excess_NN = _sigmoid(value_N[:, None] - value_N) - _sigmoid(teacher_N[:, None] - teacher_N)
    pairs = max(len(value_N) * (len(value_N) - 1) / 2, 1)
    slope_B[present_B] = excess_NN.sum(axis=1) / np.float32(pairs)
    return slope_B


def _shares(log_N: Singles) -> Singles:
    """Each exp(log) as a share of their sum."""
    odds_N = np.exp(log_N - log_N.max())
    share_N: Singles = odds_N / odds_N.sum()
    return share_N


def _sigmoid(logit_X: Singles) -> Singles:
    with np.errstate(over="ignore"):  # of the exponential of a very low one, whose probability is 0
        probability_X: Singles = np.float32(1) / (np.float32(1) + np.exp(-logit_X))
    return probability_X
