"""The units in which heads learn: 0 is the mean target, so that an untrained head is calibrated. Shapes: B rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from stream.tasks import TaskKind
from student.learn.losses import head_loss
from student.versions.normalizer import RunningMoments


class Unit(NamedTuple):
    """Where a head's own value 0 lies, and its unit: natural value (a logit if binary) = value * scale + offset."""

    kind: TaskKind
    offset: float
    scale: float

    def loss(self, value_B: Tensor, target_B: Tensor) -> Tensor:
        """The head's mean loss: in nats (binary), or squared in units of `scale` (regression)."""
        if self.kind == "binary":
            return head_loss(self.kind, self.natural(value_B), target_B)
        return head_loss(self.kind, value_B, self.own(target_B))

    def natural(self, value_B: Tensor) -> Tensor:
        """A head's own values as logits, or as values of the task."""
        return value_B * self.scale + self.offset

    def own(self, natural_B: Tensor) -> Tensor:
        """The inverse of `natural`."""
        return (natural_B - self.offset) / self.scale


def units(kinds: Sequence[TaskKind], moments: RunningMoments) -> list[Unit]:
    """A unit for each column of targets that `moments` has seen.

    Binary: the logit of the mean, with one label of each class added (Laplace). Regression: mean and deviation.
    """
    found: list[Unit] = []
    for kind, count, mean, std in zip(kinds, moments.count, moments.mean, moments.std, strict=True):
        if kind == "binary":
            positive = float(mean) * int(count) + 1
            found.append(Unit("binary", float(np.log(positive / (int(count) + 2 - positive))), 1.0))
        else:
            found.append(Unit("regression", float(mean), float(std)))
    return found
