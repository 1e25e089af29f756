"""The example teachers' network: embedded codes and scaled numbers through one trunk into one head for each task.

Shapes: B rows, W an input's width, T tasks.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from lab.pairs.source import TeacherDesign, TeacherInput


class TeacherNetwork(nn.Module):
    """`scales` gives for each number input the mean and the standard deviation by which it is scaled."""

    def __init__(self, design: TeacherDesign, scales: Mapping[str, tuple[float, float]]) -> None:
        super().__init__()
        self.design = design
        self.scales = dict(scales)
        self.embeddings = nn.ModuleDict(
            {i.name: _embedding(i.codes, design.embedding_dim) for i in design.inputs if i.codes is not None}
        )
        widths = [sum(design.embedding_dim if i.codes else i.width for i in design.inputs), *design.trunk]
        self.trunk = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.heads = nn.Linear(widths[-1], len(design.heads))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits and values [B, T] in the order of the design's heads; codes are int64 [B], numbers [B] or [B, W]."""
        hidden = torch.cat([self._column(i, inputs[i.name]) for i in self.design.inputs], dim=1)
        for layer in self.trunk:
            hidden = torch.relu(layer(hidden))
        outputs: Tensor = self.heads(hidden)
        return outputs

    def _column(self, spec: TeacherInput, values: Tensor) -> Tensor:
        if spec.codes is not None:
            embedded: Tensor = self.embeddings[spec.name](values)
            return embedded
        mean, deviation = self.scales[spec.name]
        numbers = torch.log1p(values) if spec.logarithm else values
        return ((numbers - mean) / deviation).reshape(len(values), spec.width)


def _embedding(codes: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(codes, width)
    nn.init.normal_(embedding.weight, std=0.05)
    return embedding
