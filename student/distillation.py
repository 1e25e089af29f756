"""From a head's value and the teacher's logit to the loss that graft.toml names. Shapes: B rows."""

from torch import Tensor

from student.config import DistillationConfig
from student.losses import listwise, logit_mse, pairwise, soft_label_loss
from student.units import Unit


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
