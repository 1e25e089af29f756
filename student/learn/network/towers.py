"""Towers and heads that are computed together: all of one kind by one product, and its gradient written out.

Shapes: B rows, H units of the trunk, W towers of U units, X = W * U, O heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class Towers(NamedTuple):
    """Linear layers of one size on the trunk, each before a ReLU."""

    weight_XH: Tensor
    bias_X: Tensor

    def values(self, hidden_BH: Tensor) -> Tensor:
        """[B, X], tower after tower."""
        return linear(hidden_BH, self.weight_XH, self.bias_X).relu_()

    def back(self, hidden_BH: Tensor, value_BX: Tensor, slope_BX: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From the slope in their `values`: the one in the trunk's [B, H], and the gradient of weight and bias."""
        slope_BX = slope_BX * (value_BX > 0)
        return slope_BX @ self.weight_XH, of_layer(slope_BX, hidden_BH)


class Places(NamedTuple):
    """On which of W towers each of O heads is."""

    tower_O: Tensor
    is_on_WO: Tensor
    """The same as ones among zeros: a product with it is of one order on every device."""


class Heads(NamedTuple):
    """Outputs of one number each, on a tower each: head n is on tower n, unless there are `places`.

    They send their slope to their towers times `scale_O`, if there is one; their own weights do not see it.
    """

    weight_OU: Tensor
    bias_O: Tensor
    places: Places | None = None
    scale_O: Tensor | None = None

    def values(self, tower_BX: Tensor) -> Tensor:
        """[B, O]."""
        return (self._towers(tower_BX) * self.weight_OU).sum(dim=2) + self.bias_O

    def back(self, tower_BX: Tensor, slope_BO: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From the slope in their `values`: the one in the towers' [B, X], and the gradient of weight and bias."""
        weight_OU = (slope_BO.unsqueeze(2) * self._towers(tower_BX)).sum(dim=0)
        sent_BO = slope_BO if self.scale_O is None else slope_BO * self.scale_O
        sent_BWU = sent_BO.unsqueeze(2) * self.weight_OU
        if self.places is not None:
            sent_BWU = self.places.is_on_WO @ sent_BWU
        return sent_BWU.flatten(start_dim=1), [weight_OU, slope_BO.sum(dim=0)]

    def _towers(self, tower_BX: Tensor) -> Tensor:
        """Of each head its tower [B, O, U]."""
        heads, units = self.weight_OU.shape
        if self.places is None:
            return tower_BX.view(len(tower_BX), heads, units)
        return tower_BX.view(len(tower_BX), len(self.places.is_on_WO), units)[:, self.places.tower_O]


def of_layer(slope_BO: Tensor, input_BI: Tensor) -> list[Tensor]:
    """The gradient of a linear layer's weight and bias, from the slope in its outputs."""
    return [slope_BO.T @ input_BI, slope_BO.sum(dim=0)]


def places_on(towers: Sequence[int], count: int, device: torch.device) -> Places:
    """Of heads that are on these of `count` towers."""
    tower_O = torch.tensor(towers)
    is_on_WO = torch.nn.functional.one_hot(tower_O, count).T.float()
    return Places(tower_O.to(device), is_on_WO.to(device))
