"""The losses of a step: each formula with its source, as its slope in every value of its head.

A missing label or logit is NaN; its slope is 0. An auxiliary head on the shared trunk that predicts the teacher, beside
served heads that learn hard labels alone, is the form of Khani et al. 2024 and Ranganathan et al. 2026; what that head
minimises is one of the losses below. Shapes: B rows of one step, J columns of values and their targets.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Pointwise(NamedTuple):
    """What each of J columns minimises: the mean over the rows that have a target, times `weight`.

    The first `shares` columns, and the `soft` ones after them: temperature^2 times the cross-entropy of
    sigmoid((value + offset) / temperature) against a target in [0, 1], in nats (Hinton et al. 2015, section 2: the
    square makes up for slopes that shrink with it; with a high temperature the slope is that of an eighth of the
    squared difference of the logits, section 2.1 for two classes with logits z / 2 and -z / 2). The target of a soft
    column is the teacher's logit, whose `soft_label` counts. The others: the squared error in units of `scale` around
    `offset`: of two logits it is twice Ba & Caruana 2014, equation 1, which halves it.
    """

    shares: int
    soft: int
    offset_J: Tensor
    scale_J: Tensor
    temperature_J: Tensor
    weight_J: Tensor

    def slope(self, value_BJ: Tensor, target_BJ: Tensor) -> Tensor:
        """Of each loss in each value [B, J]."""
        is_missing_BJ, probable = target_BJ.isnan(), self.shares + self.soft
        softened, squared = slice(self.shares, probable), slice(probable, None)
        predicted_BJ, compared_BJ = value_BJ.clone(), target_BJ.clone()
        share_BJ = predicted_BJ[:, :probable]
        share_BJ.add_(self.offset_J[:probable]).div_(self.temperature_J[:probable]).sigmoid_()
        compared_BJ[:, softened].div_(self.temperature_J[softened]).sigmoid_()
        compared_BJ[:, squared].sub_(self.offset_J[squared]).div_(self.scale_J[squared])
        factor_J = self.weight_J * self.temperature_J
        factor_J[squared] *= 2
        count_J = (len(target_BJ) - is_missing_BJ.sum(dim=0)).clamp_(min=1)
        return predicted_BJ.sub_(compared_BJ).mul_(factor_J / count_J).masked_fill_(is_missing_BJ, 0.0)


def soft_label(teacher_logit_B: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """sigmoid(teacher_logit / temperature): the probability that a binary head shall predict; NaN without a logit."""
    return torch.sigmoid(teacher_logit_B / temperature)


def listwise_slope(logit_B: Tensor, teacher_logit_B: Tensor) -> Tensor:
    """Of the cross-entropy, in nats, between the teacher's and the head's probabilities, normalised over the list.

    The loss is -sum_i q_i / Q * log(p_i / P) with q, p = sigmoid of the logits and Q, P their sums, so its slope is
    (p_i / P - q_i / Q) * (1 - p_i). Calibration-compatible (CLID, Gui et al. 2023, eq. 15; the same form for labels:
    Bai et al. 2023, eq. 12): p = q is a minimum. With a softmax of the head's logits for p_i / P it is not: there
    exp(logit), the odds, become proportional to q. The list is the rows of the step that have a logit: on a low-traffic
    stream hardly any user comes twice among them.
    """
    is_missing_B = teacher_logit_B.isnan()
    teacher_B = torch.sigmoid(teacher_logit_B).masked_fill(is_missing_B, 0.0)
    log_B = torch.nn.functional.logsigmoid(logit_B).masked_fill(is_missing_B, -torch.inf)
    share_B = teacher_B / teacher_B.sum().clamp(min=torch.finfo().tiny)
    slope_B = (log_B.softmax(dim=0) * share_B.sum() - share_B) * torch.sigmoid(-logit_B)
    return slope_B.masked_fill(is_missing_B, 0.0)


def pairwise_slope(value_B: Tensor, teacher_B: Tensor) -> Tensor:
    """Of the mean cross-entropy over pairs of rows: sigmoid(value_i - value_j) against sigmoid(teacher_i - teacher_j).

    RankNet (Burges et al. 2005, equation 3) with the teacher's odds as the target order. Over all pairs of rows that
    have a logit, in nats; 0 when fewer than two have.
    """
    present_B = ~teacher_B.isnan()
    filled_B = teacher_B.masked_fill(~present_B, 0.0)
    above_BB = torch.sigmoid(filled_B.unsqueeze(1) - filled_B)
    excess_BB = torch.sigmoid(value_B.unsqueeze(1) - value_B) - above_BB
    is_pair_BB = present_B.unsqueeze(1) & present_B
    pairs = (present_B.sum() * (present_B.sum() - 1)).clamp(min=2) / 2
    return (excess_BB * is_pair_BB).sum(dim=1) / pairs
