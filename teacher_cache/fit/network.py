"""The network of the teachers that graft trains: embedded codes and scaled numbers, one trunk, a head for each task.

Shapes: B rows, W an input's width, T tasks.
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

from teacher_cache.fit.source import DesignInput, DesignTaste, TeacherDesign

Scale = tuple[float, float]
"""A mean and a standard deviation."""


class TeacherNetwork(nn.Module):
    """`scales` gives for each number input the mean and the standard deviation by which it is scaled.

    `label_scales`: the same of each head; none: no output is scaled.
    """

    def __init__(
        self,
        design: TeacherDesign,
        scales: Mapping[str, Scale],
        label_scales: Mapping[str, Scale] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.design = design
        self.scales = dict(scales)
        self.label_scales = dict(label_scales)
        self.embeddings = nn.ModuleDict(
            {i.name: _embedding(i.codes, design.embedding_dim) for i in design.columns if i.codes is not None}
        )
        widths = [sum(design.embedding_dim if i.codes else i.width for i in design.columns), *design.trunk]
        self.trunk = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.heads = nn.Linear(widths[-1], len(design.heads))
        self.taste = Taste(design, design.taste) if design.taste else None

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits and values [B, T] in the order of the design's heads; codes are int64 [B], numbers [B] or [B, W]."""
        hidden = torch.cat([self._column(i, inputs[i.name]) for i in self.design.columns], dim=1)
        for layer in self.trunk:
            hidden = torch.relu(layer(hidden))
        outputs: Tensor = self.heads(hidden)
        if self.taste is not None:
            outputs = outputs + self.taste(inputs)
        if self.label_scales:
            mean_T, deviation_T = torch.tensor([self.label_scales[head] for head in self.design.heads]).T
            outputs = outputs * deviation_T + mean_T
        return outputs

    def _column(self, spec: DesignInput, values: Tensor) -> Tensor:
        if spec.codes is not None:
            embedded: Tensor = self.embeddings[spec.name](values)
            return embedded
        mean, deviation = self.scales[spec.name]
        numbers = torch.log1p(values) if spec.logarithm else values
        return ((numbers - mean) / deviation).reshape(-1, spec.width)


class Taste(nn.Module):
    """What `DesignTaste` says: a vector of W numbers for each user and each item code."""

    def __init__(self, design: TeacherDesign, taste: DesignTaste) -> None:
        super().__init__()
        codes = {i.name: i.codes or 0 for i in design.inputs}
        self.design = taste
        self.users = nn.Embedding(codes[taste.user], taste.width, padding_idx=0)
        self.items = nn.Embedding(codes[taste.item], taste.width)
        self.scale_T = nn.Parameter(torch.ones(len(design.heads)))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)
        with torch.no_grad():
            self.users.weight[0] = 0

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What it adds to each head, [B, T]."""
        product_BW = self.users(inputs[self.design.user]) * self.items(inputs[self.design.item])
        added_BT: Tensor = product_BW.sum(dim=1, keepdim=True) * self.scale_T
        return added_BT

    def penalty(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the loss of these rows has of the vectors themselves."""
        squares = [table(inputs[name]).square().sum(dim=1).mean() for table, name in self._tables()]
        return self.design.decay * torch.stack(squares).sum()

    @torch.no_grad()
    def turn(self) -> None:
        """Turn both tables so that users vary alike and uncorrelated along each axis; no product changes.

        The axis along which items differ the most comes first.
        """
        covariance_WW = torch.cov(self.users.weight[1:].T)
        variance_W, axes_WW = torch.linalg.eigh(covariance_WW)
        turned = axes_WW.flip(1) * variance_W.flip(0).clamp(min=1e-12).sqrt()
        self.users.weight.copy_(torch.linalg.solve(turned, self.users.weight.T).T)
        self.items.weight.copy_(self.items.weight @ turned)

    def _tables(self) -> tuple[tuple[nn.Embedding, str], ...]:
        return (self.users, self.design.user), (self.items, self.design.item)


def _embedding(codes: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(codes, width)
    nn.init.normal_(embedding.weight, std=0.05)
    return embedding
