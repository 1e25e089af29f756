"""The student adapter of ExFM (Liang et al. 2025): the teacher's value as the target's labels would have it.

A small network in front of the teacher's output, value + MLP(value), in the heads' own units; at first the value itself
(ExFM has MLP(value) alone). It learns from hard labels alone, and the student from its output, so that a teacher of
another calibration, or of no use, does no harm. Shapes: B rows, U hidden units.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from student.versions.served_tensors import Layer

_WIDTH = 8


class Adapted(NamedTuple):
    """An adapter's output, NaN where the teacher has no value, and what it comes from."""

    value_B: Tensor
    input_B1: Tensor
    hidden_BU: Tensor


class Adapter(NamedTuple):
    """The two layers of one teacher task's adapter."""

    hidden: Layer
    head: Layer

    @classmethod
    def of(cls, teacher_task: str) -> Self:
        """The layers by their names."""
        return cls(Layer(f"adapter.{teacher_task}", 1, _WIDTH), Layer(f"adapter_head.{teacher_task}", _WIDTH, 1))

    def apply(self, weights: Mapping[str, Tensor], teacher_B: Tensor) -> Adapted:
        """The teacher's values, as the labels would have them."""
        is_missing_B = teacher_B.isnan()
        input_B1 = teacher_B.masked_fill(is_missing_B, 0.0).unsqueeze(1)
        hidden_BU = linear(input_B1, weights[self.hidden.weight], weights[self.hidden.bias]).relu_()
        value_B1 = input_B1 + linear(hidden_BU, weights[self.head.weight], weights[self.head.bias])
        return Adapted(value_B1.squeeze(1).masked_fill(is_missing_B, torch.nan), input_B1, hidden_BU)

    def gradient(self, weights: Mapping[str, Tensor], found: Adapted, slope_B: Tensor) -> list[Tensor]:
        """Of the loss in all its weights, in the order of its layers; `slope_B`: in its output."""
        slope_B1 = slope_B.unsqueeze(1)
        slope_BU = slope_B1 @ weights[self.head.weight] * (found.hidden_BU > 0)
        of_hidden = [slope_BU.T @ found.input_B1, slope_BU.sum(dim=0)]
        return [*of_hidden, slope_B1.T @ found.hidden_BU, slope_B1.sum(dim=0)]
