"""The formulas of the losses, each with its source. Shapes: B rows of one step.

A missing label or logit is NaN. It is replaced before the loss and masked after it: a `torch.where` over a loss that is
already NaN would still give NaN gradients.

An auxiliary head on the shared trunk that predicts the teacher, beside served heads that learn hard labels alone, is
the form of Khani et al. 2024 and Ranganathan et al. 2026; what that head minimises is one of the losses below. All of
them take natural values: logits of binary tasks, values of regressions.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from stream.tasks import TaskKind

_SMALLEST = -1e30
"""In place of minus infinity, whose gradient through a logsumexp over nothing is NaN."""


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


def soft_label(teacher_logit_B: Tensor, temperature: float = 1.0) -> Tensor:
    """sigmoid(teacher_logit / temperature): the probability that a binary head shall predict; NaN without a logit."""
    return torch.sigmoid(teacher_logit_B / temperature)


def soft_label_loss(logit_B: Tensor, teacher_logit_B: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times the cross-entropy of sigmoid(logit / T) against the soft label at the same temperature T, in nats.

    Hinton et al. (2015), section 2: T^2 makes up for gradients that shrink with 1 / T^2. The head's own logit stays at
    temperature 1; with a high T the gradient is that of an eighth of the squared difference of the
    logits (section 2.1, for two classes with logits z / 2 and -z / 2).
    """
    soft_B = soft_label(teacher_logit_B, temperature)
    return temperature**2 * head_loss("binary", logit_B / temperature, soft_B)


def logit_mse(logit_B: Tensor, teacher_logit_B: Tensor) -> Tensor:
    """Mean squared difference of the logits: twice Ba & Caruana 2014, equation 1, which halves it."""
    return head_loss("regression", logit_B, teacher_logit_B)


def listwise(logit_B: Tensor, teacher_logit_B: Tensor) -> Tensor:
    """Cross-entropy, in nats, between the teacher's and the head's probabilities, each normalised over the list.

    -sum_i q_i / Q * log(p_i / P) with q, p = sigmoid of the logits and Q, P their sums. Calibration-compatible (CLID,
    Gui et al. 2023, eq. 15; the same form for labels: Bai et al. 2023, eq. 12): p = q is a minimum. With a softmax of
    the head's logits for p_i / P it is not: there exp(logit), the odds, become proportional to q. The list is the rows
    of the step that have a logit: on a low-traffic stream hardly any user comes twice among them.
    """
    present_B = ~torch.isnan(teacher_logit_B)
    teacher_B = torch.where(present_B, torch.sigmoid(teacher_logit_B.nan_to_num()), 0.0)
    log_B = torch.where(present_B, logsigmoid(logit_B), _SMALLEST)
    share_B = teacher_B / teacher_B.sum().clamp(min=torch.finfo().tiny)
    log_share_B = torch.where(present_B, log_B - log_B.logsumexp(dim=0), 0.0)
    return -(share_B * log_share_B).sum()


def pairwise(value_B: Tensor, teacher_B: Tensor) -> Tensor:
    """Mean cross-entropy over pairs of rows: sigmoid(value_i - value_j) against sigmoid(teacher_i - teacher_j).

    RankNet (Burges et al. 2005, equation 3) with the teacher's odds as the target order. Over all pairs of rows that
    have a logit, in nats; 0 when fewer than two have.
    """
    present_B = ~torch.isnan(teacher_B)
    filled_B = torch.where(present_B, teacher_B, 0.0)
    above_BB = torch.sigmoid(filled_B.unsqueeze(1) - filled_B)
    loss_BB = binary_cross_entropy_with_logits(value_B.unsqueeze(1) - value_B, above_BB, reduction="none")
    pair_BB = (present_B.unsqueeze(1) & present_B).triu(diagonal=1)
    return (loss_BB * pair_BB).sum() / pair_BB.sum().clamp(min=1)
