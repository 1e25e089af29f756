"""From a head's value and the teacher's logit to the loss that graft.toml names. Shapes: B rows."""

import torch
from torch import Tensor

from student.learn.config import DistillationConfig
from student.learn.losses import listwise, logit_mse, pairwise, soft_label, soft_label_loss
from student.learn.units import Unit


def distillation_loss(config: DistillationConfig, unit: Unit, value_B: Tensor, teacher_B: Tensor) -> Tensor:
    """The mean loss of a head's values in its own unit against the teacher's natural ones; NaN: no teacher.

    A regression has no soft label: pointwise losses are its squared error, in deviations.
    """
    if config.loss == "pairwise":
        return pairwise(value_B, unit.own(teacher_B))
    if unit.kind == "regression":
        return unit.loss(value_B, teacher_B)
    logit_B = unit.natural(value_B)
    if config.loss == "listwise":
        return listwise(logit_B, teacher_B)
    if config.loss == "logit_mse":
        return logit_mse(logit_B, teacher_B)
    return soft_label_loss(config, logit_B, teacher_B)


def explained(config: DistillationConfig, unit: Unit, value_B: Tensor, teacher_B: Tensor) -> float:
    """The share of the teacher's variance that a head's values explain (R2): 1 all, 0 no more than the mean does.

    Of probabilities where the head is binary. Below 0: worse than the mean. 0 when fewer than two rows have a teacher
    value, or all the same.
    """
    known_B = ~torch.isnan(teacher_B)
    target_N, predicted_N = teacher_B[known_B], unit.natural(value_B[known_B])
    if unit.kind == "binary":
        target_N, predicted_N = soft_label(config, target_N), torch.sigmoid(predicted_N)
    spread = (target_N - target_N.mean()).square().sum() if len(target_N) else torch.zeros(())
    return float(1 - (target_N - predicted_N).square().sum() / spread) if spread > 0 else 0.0
