"""What each head learns from. Shapes: B examples.

A missing label or logit is NaN. It is replaced before the loss and masked after it: a `torch.where` over a loss that is
already NaN would still give NaN gradients.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from stream.tasks import TaskKind
from student.config import DistillationConfig


def head_loss(kind: TaskKind, predicted_B: Tensor, target_B: Tensor) -> Tensor:
    """Mean loss over the rows that have a target; 0 when none has.

    Binary: cross-entropy of sigmoid(`predicted_B`) against a target in [0, 1], in nats. Regression: squared error.
    """
    present_B = ~torch.isnan(target_B)
    filled_B = torch.where(present_B, target_B, 0.0)
    if kind == "binary":
        loss_B = binary_cross_entropy_with_logits(predicted_B, filled_B, reduction="none")
    else:
        loss_B = (predicted_B - filled_B).square()
    return (loss_B * present_B).sum() / present_B.sum().clamp(min=1)


def soft_label(kind: TaskKind, config: DistillationConfig, teacher_logit_B: Tensor) -> Tensor:
    """What the auxiliary head predicts; NaN where the logit is missing.

    Binary: label_scale * sigmoid(teacher_logit / temperature), at most 1: label scaling of ExFM (Liang et al. 2025)
    over the softened label of Hinton et al. (2015). Regression: the teacher's value itself.
    """
    if kind == "regression":
        return teacher_logit_B
    return (config.label_scale * torch.sigmoid(teacher_logit_B / config.temperature)).clamp(max=1.0)


def distillation_weight(config: DistillationConfig, examples: int) -> float:
    """The weight of an auxiliary loss after `examples` learnt examples; decay: halved every `decay_examples`."""
    if config.schedule == "off":
        return 0.0
    if config.schedule == "decay":
        return float(config.weight * 0.5 ** (examples / config.decay_examples))
    return config.weight


def scale_gradient(value: Tensor, scale: float) -> Tensor:
    """`value` itself, whose gradient is multiplied by `scale` on its way back: gradient scaling of ExFM.

    With soft labels near 0 an auxiliary head barely moves the trunk; a scale above 1 makes up for it.
    """
    return value if scale == 1.0 else value.detach() + scale * (value - value.detach())
