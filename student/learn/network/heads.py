"""What each head learns in a step: from which target, in which unit, with which loss and weight.

A head's own value 0 means the mean target, so that an untrained head is calibrated. A loss stands as its slope in every
value of its head; a missing label or logit is NaN, and its slope is 0. An auxiliary head on the shared trunk that
predicts the teacher, beside served heads that learn hard labels alone, is the form of Khani et al. 2024 and Ranganathan
et al. 2026. In numpy: a step has some hundred values. Shapes: B rows, O heads, of which the served ones come first,
J columns of values and their targets.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stream.tasks import TaskKind
from student.learn.config import DistillationConfig

Singles = NDArray[np.float32]
Values = TypeVar("Values", Singles, Tensor)


class Unit(NamedTuple):
    """The unit of a head's values: natural value (a logit if binary) = value * scale + offset; scale is 1 if binary."""

    kind: TaskKind
    offset: float
    scale: float

    def natural(self, value_B: Values) -> Values:
        """A head's values as logits, or as values of the task."""
        return value_B * self.scale + self.offset

    def scaled(self, natural_B: Values) -> Values:
        """The inverse of `natural`."""
        return (natural_B - self.offset) / self.scale


class Loss(IntEnum):
    """The losses of `Pointwise`, in the order of its columns."""

    SHARE = 0
    SOFT_LABEL = 1
    SQUARE = 2


class Lesson(NamedTuple):
    """What the value at `place` learns row by row."""

    place: int
    unit: Unit
    loss: Loss
    weight: float = 1.0
    is_label: bool = False
    """Whether its targets are labels, which stand for as many impressions as their rows say."""

    @classmethod
    def of_label(cls, place: int, unit: Unit) -> Self:
        """A label: by the cross-entropy in nats (binary), or by the squared error in deviations."""
        return cls(place, unit, Loss.SHARE if unit.kind == "binary" else Loss.SQUARE, is_label=True)


class TeacherHead(NamedTuple):
    """What an auxiliary head learns from the teacher in one step.

    `place`: its value's place among those of all heads. `column`: its teacher task's column in the teacher's logits.
    `unit`: that of its values.
    """

    config: DistillationConfig
    place: int
    column: int
    unit: Unit
    weight: float

    def lesson(self) -> Lesson:
        """The soft label. A regression has none: it learns the value, in deviations."""
        loss = Loss.SOFT_LABEL if self.unit.kind == "binary" else Loss.SQUARE
        return Lesson(self.place, self.unit, loss, self.weight)

    def explained(self, value_B: Singles, teacher_B: Singles) -> float:
        """The share of the teacher's variance that the head's values explain (R2): 1 all, 0 no more than the mean does.

        Of probabilities where the head is binary. Below 0: worse than the mean. 0 when fewer than two rows have a
        teacher value, or all the same but for rounding.
        """
        known_B = ~np.isnan(teacher_B)
        target_N, predicted_N = teacher_B[known_B], self.unit.natural(value_B[known_B])
        if self.unit.kind == "binary":
            target_N, predicted_N = soft_label(target_N), soft_label(predicted_N)
        if not varies(target_N):
            return 0.0
        spread = ((target_N - target_N.mean()) ** 2).sum()
        return float(1 - ((target_N - predicted_N) ** 2).sum() / spread)


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


def slopes(value_BO: Singles, lessons: Sequence[tuple[Lesson, Singles]], weight_B: Singles) -> Singles:
    """Of the sum of all losses in every value [B, O]; with each lesson its targets [B]: labels, or natural values.

    `weight_B`: how many impressions the labels of each row stand for.
    """
    by_kind = sorted(lessons, key=lambda each: each[0].loss)
    kinds = [lesson.loss for lesson, _ in by_kind]
    places = [lesson.place for lesson, _ in by_kind]
    rows = [(lesson.unit.offset, lesson.unit.scale, lesson.weight) for lesson, _ in by_kind]
    target_BJ = np.stack([target_B for _, target_B in by_kind], axis=1)
    counts_BJ = np.where([lesson.is_label for lesson, _ in by_kind], weight_B[:, None], np.float32(1))
    pointwise = Pointwise(kinds.count(Loss.SHARE), kinds.count(Loss.SOFT_LABEL), *np.array(rows, np.float32).T)
    slope_BO = np.zeros_like(value_BO)
    for place, slope_B in zip(places, pointwise.slope(value_BO[:, places], target_BJ, counts_BJ).T, strict=True):
        slope_BO[:, place] += slope_B
    return slope_BO


def varies(value_N: NDArray[np.floating]) -> bool:
    """Whether values differ by more than rounding. A student explains all of a constant, and has learnt nothing."""
    if len(value_N) <= 1:
        return False
    value_N = value_N.astype(np.float64)
    return bool(value_N.std() > _ROUNDING * np.abs(value_N).max())


_ROUNDING = 1e-5
"""Of the largest value: the sums of a batch are rounded differently by its place, in float32 to about a millionth."""
