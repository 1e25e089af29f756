"""Towers and heads that are computed together: all of one kind by one product, and its gradient written out.

Shapes: B rows, H units of the trunk, W towers of U units, X = W * U, O heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class Towers(NamedTuple):
    """Linear layers of one size on the trunk, each before a ReLU.

    They send their slope to the trunk times `scale_X`, which their own weights do not see.
    """

    weight_XH: Tensor
    bias_X: Tensor
    scale_X: Tensor

    def values(self, hidden_BH: Tensor) -> Tensor:
        """[B, X], tower after tower."""
        return linear(hidden_BH, self.weight_XH, self.bias_X).relu_()

    def back(self, hidden_BH: Tensor, value_BX: Tensor, slope_BX: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From the slope in their `values`: the one in the trunk's [B, H], and the gradient of weight and bias."""
        slope_BX = slope_BX * (value_BX > 0)
        return (slope_BX * self.scale_X) @ self.weight_XH, of_layer(slope_BX, hidden_BH)


class Heads(NamedTuple):
    """Outputs of one number each, on one of W towers each.

    They send their slope to their towers times `scale_O`, which their own weights do not see.
    """

    weight_OU: Tensor
    bias_O: Tensor
    scale_O: Tensor
    is_on_WO: Tensor
    """1 where a head is on a tower, else 0."""

    def values(self, tower_BX: Tensor) -> Tensor:
        """[B, O]."""
        return torch.addmm(self.bias_O, tower_BX, self._of_towers())

    def back(self, tower_BX: Tensor, slope_BO: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From the slope in their `values`: the one in the towers' [B, X], and the gradient of weight and bias."""
        towers, heads = self.is_on_WO.shape
        weight_WUO = (tower_BX.T @ slope_BO).view(towers, -1, heads)
        weight_OU = (weight_WUO * self.is_on_WO.unsqueeze(1)).sum(dim=0).T
        return (slope_BO * self.scale_O) @ self._of_towers().T, [weight_OU, slope_BO.sum(dim=0)]

    def _of_towers(self) -> Tensor:
        """The weights [X, O]: each head's in the rows of its tower, 0 in those of the others."""
        return (self.weight_OU.T * self.is_on_WO.unsqueeze(1)).flatten(end_dim=1)


def of_layer(slope_BO: Tensor, input_BI: Tensor) -> list[Tensor]:
    """The gradient of a linear layer's weight and bias, from the slope in its outputs."""
    return [slope_BO.T @ input_BI, slope_BO.sum(dim=0)]


def is_on(towers: Sequence[int], count: int) -> Tensor:
    """`Heads.is_on_WO` of heads that are on these of `count` towers."""
    return torch.nn.functional.one_hot(torch.tensor(towers), count).T.float()
