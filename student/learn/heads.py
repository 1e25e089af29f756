"""What each head learns in a step: from which target, in which unit, with which loss and weight. Shapes: B rows.

A head's own value 0 means the mean target, so that an untrained head is calibrated.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stream.tasks import TaskKind
from student.learn.config import DistillationConfig
from student.learn.losses import head_loss, listwise, logit_mse, pairwise, soft_label, soft_label_loss


class Unit(NamedTuple):
    """The unit of a head's values: natural value (a logit if binary) = value * scale + offset."""

    kind: TaskKind
    offset: float
    scale: float

    def loss(self, value_B: Tensor, target_B: Tensor) -> Tensor:
        """The mean loss against labels or natural values: in nats (binary), or squared in units of `scale`."""
        if self.kind == "binary":
            return head_loss(self.kind, self.natural(value_B), target_B)
        return head_loss(self.kind, value_B, self.scaled(target_B))

    def natural(self, value_B: Tensor) -> Tensor:
        """A head's values as logits, or as values of the task."""
        return value_B * self.scale + self.offset

    def scaled(self, natural_B: Tensor) -> Tensor:
        """The inverse of `natural`."""
        return (natural_B - self.offset) / self.scale


class TeacherHead(NamedTuple):
    """What an auxiliary head learns from the teacher in one step.

    `place`: the head's place among the auxiliary heads. `column`: its teacher task's column in the teacher's logits.
    `unit`: that of its values. `labels`: the column of the labels that its adapter learns from; None without an
    adapter. An adapter reads the teacher's values in `teacher_unit` and gives them in `unit`; without one both are the
    same.
    """

    config: DistillationConfig
    place: int
    column: int
    teacher_unit: Unit
    unit: Unit
    weight: float
    labels: int | None = None

    def pointwise(self) -> "TeacherHead":
        """The same head with a loss that fixes the level of its values too: the soft label in place of a ranking."""
        ranking = self.config.loss in ("listwise", "pairwise")
        return self._replace(config=self.config.model_copy(update={"loss": "soft_label"})) if ranking else self

    def loss(self, value_B: Tensor, teacher_B: Tensor) -> Tensor:
        """`weight` times the mean loss of the head's values against the teacher's natural ones; NaN: no teacher.

        A regression has no soft label: pointwise losses are its squared error, in deviations.
        """
        return self.weight * self._mean_loss(value_B, teacher_B)

    def explained(self, value_B: Tensor, teacher_B: Tensor) -> float:
        """The share of the teacher's variance that the head's values explain (R2): 1 all, 0 no more than the mean does.

        Of probabilities where the head is binary. Below 0: worse than the mean. 0 when fewer than two rows have a
        teacher value, or all the same but for rounding.
        """
        known_B = ~torch.isnan(teacher_B)
        target_N, predicted_N = teacher_B[known_B], self.unit.natural(value_B[known_B])
        if self.unit.kind == "binary":
            target_N, predicted_N = soft_label(target_N), torch.sigmoid(predicted_N)
        if not varies(target_N):
            return 0.0
        spread = (target_N - target_N.mean()).square().sum()
        return float(1 - (target_N - predicted_N).square().sum() / spread)

    def _mean_loss(self, value_B: Tensor, teacher_B: Tensor) -> Tensor:
        config = self.config
        if config.loss == "pairwise":
            return pairwise(value_B, self.unit.scaled(teacher_B))
        if self.unit.kind == "regression":
            return self.unit.loss(value_B, teacher_B)
        logit_B = self.unit.natural(value_B)
        if config.loss == "listwise":
            return listwise(logit_B, teacher_B)
        if config.loss == "logit_mse":
            return logit_mse(logit_B, teacher_B)
        return soft_label_loss(logit_B, teacher_B, config.temperature)


def varies(value_N: Tensor) -> bool:
    """Whether values differ by more than rounding. A student explains all of a constant, and has learnt nothing."""
    if len(value_N) <= 1:
        return False
    value_N = value_N.double()
    return bool(value_N.std(correction=0) > _ROUNDING * value_N.abs().max())


_ROUNDING = 1e-5
"""Of the largest value: the sums of a batch are rounded differently by its place, in float32 to about a millionth."""
