"""The area under the ROC curve, by which the pairs' teachers are reported."""

import numpy as np
from numpy.typing import NDArray


def auc(score_B: NDArray[np.float32], label_B: NDArray[np.float32]) -> float:
    """Chance that a positive scores above a negative (Mann-Whitney), ties counted half; NaN without both classes."""
    _, rank_of, counts = np.unique(score_B, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    positives = label_B > 0
    n, m = int(positives.sum()), int((~positives).sum())
    if not n or not m:
        return float("nan")
    return float((middle_rank[rank_of[positives]].sum() - n * (n + 1) / 2) / (n * m))
