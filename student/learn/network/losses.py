"""The losses of a step: each formula with its source, as its slope in every value of its head.

A missing label or logit is NaN; its slope is 0. An auxiliary head on the shared trunk that predicts the teacher, beside
served heads that learn hard labels alone, is the form of Khani et al. 2024 and Ranganathan et al. 2026. In numpy: a
step has some hundred values. Shapes: B rows of one step, J columns of values and their targets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]


class Pointwise(NamedTuple):
    """What each of J columns minimises: the weighted mean over the rows that have a target, times `weight`.

    The first `shares` columns, and the `soft` ones after them: the cross-entropy of sigmoid(value + offset) against a
    target in [0, 1], in nats. The target of a soft column is the teacher's logit, whose `soft_label` counts (Hinton et
    al. 2015, at temperature 1). The others: the squared error in units of `scale` around `offset`.
    """

    shares: int
    soft: int
    offset_J: Singles
    scale_J: Singles
    weight_J: Singles

    def slope(self, value_BJ: Singles, target_BJ: Singles, counts_BJ: Singles) -> Singles:
        """Of each loss in each value [B, J]; `counts_BJ`: as how many each target counts."""
        probable = slice(0, self.shares + self.soft)
        softened, squared = slice(self.shares, probable.stop), slice(probable.stop, None)
        predicted_BJ, compared_BJ = value_BJ.copy(), target_BJ.copy()
        predicted_BJ[:, probable] = soft_label(value_BJ[:, probable] + self.offset_J[probable])
        compared_BJ[:, softened] = soft_label(target_BJ[:, softened])
        compared_BJ[:, squared] = (target_BJ[:, squared] - self.offset_J[squared]) / self.scale_J[squared]
        factor_J = self.weight_J.copy()
        factor_J[squared] *= 2
        is_missing_BJ = np.isnan(target_BJ)
        count_J = np.maximum(np.where(is_missing_BJ, 0, counts_BJ).sum(axis=0), 1).astype(np.float32)
        slope_BJ: Singles = (predicted_BJ - compared_BJ) * (factor_J / count_J) * counts_BJ
        slope_BJ[is_missing_BJ] = 0
        return slope_BJ


def soft_label(logit_X: Singles) -> Singles:
    """sigmoid(teacher_logit): the probability that a binary head shall predict; NaN without a logit."""
    with np.errstate(over="ignore"):  # of the exponential of a very low one, whose probability is 0
        probability_X: Singles = np.float32(1) / (np.float32(1) + np.exp(-logit_X))
    return probability_X
