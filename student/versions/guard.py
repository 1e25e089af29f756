"""The guard: the student's answer is the mean of its own and its control's, weighted by how well each has predicted.

A teacher that is of no use costs next to nothing, whatever it says. For learner and scorer alike.
Shapes: X is any shape that broadcasts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT = "guard.weight"
"""[K]: of the student's own value in its answer; the rest is the control's."""

_NEGLIGIBLE = 1e-3
"""A weight that is as none: the scorer need not compute what has it."""

Floats = NDArray[np.floating[Any]]


def weight_of(evidence_X: Floats) -> Floats:
    """The student's weight, from the log odds that it predicts better than the control; exactly 0 or 1 at the ends."""
    weight_X = 1 / (1 + np.exp(-np.clip(evidence_X, -50, 50)))
    return np.where(weight_X < _NEGLIGIBLE, 0.0, np.where(weight_X > 1 - _NEGLIGIBLE, 1.0, weight_X))


def answer(weight_X: Floats, student_X: Floats, control_X: Floats, binary_X: NDArray[np.bool_]) -> Floats:
    """The mean of two values: of the probabilities of two logits (binary), as a logit, or of the values themselves."""
    with np.errstate(divide="ignore"):  # the logarithm of a weight of 0
        own_X, other_X = np.log(weight_X), np.log1p(-weight_X)
    positive_X = np.logaddexp(own_X + _log_sigmoid(student_X), other_X + _log_sigmoid(control_X))
    negative_X = np.logaddexp(own_X + _log_sigmoid(-student_X), other_X + _log_sigmoid(-control_X))
    mean_X = np.where(binary_X, positive_X - negative_X, weight_X * student_X + (1 - weight_X) * control_X)
    return np.where(weight_X == 1, student_X, np.where(weight_X == 0, control_X, mean_X))


def _log_sigmoid(logit_X: Floats) -> Floats:
    return -np.logaddexp(0, -logit_X)
