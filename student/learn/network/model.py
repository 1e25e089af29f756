"""The student: a shared embedding table, a trunk, a tower per task with its served head, and auxiliary teacher heads.

Its gradient is written out: of a network so small, torch's own record of what to differentiate takes several times as
long as the arithmetic. Shapes: B rows, D dense columns, C categorical columns, R table rows, E embedding, I = D + C * E
inputs, V dense weights, K towers of U units, X = K * U, O = K + A heads: K served ones, then A auxiliary. Towers, and
heads of one kind, are computed together: W towers of U units on the trunk's H.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from stream.tasks import TaskSpec
from student.learn.config import DistillationConfig
from student.versions.manifest import StudentConfig
from student.versions.served_tensors import EMBEDDING, Layer, layers_of

CPU = torch.device("cpu")
_SMALL_DEVIATION = 0.05


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


class Shape(NamedTuple):
    """What fixes a student's tensors. The control's `distillation` is empty."""

    config: StudentConfig
    tasks: tuple[TaskSpec, ...]
    distillation: tuple[DistillationConfig, ...]
    dense_width: int
    categorical_width: int


class Inputs(NamedTuple):
    """Rows for a student: normalised dense columns, and the table row of each category."""

    dense_BD: Tensor
    row_BC: Tensor


class Activations(NamedTuple):
    """What each part gave for B rows; the gradient follows from it."""

    crossed: list[Tensor]
    """The inputs [B, I], then what each cross layer made of them."""
    hidden: list[Tensor]
    """What goes into each layer of the trunk, then what comes out of the last one."""
    tower_BX: Tensor
    value_BO: Tensor
    """Of each head: a logit (binary) or a value in the head's own unit (regression)."""


class Student:
    """The weights by name, the forward pass and its gradient. The dense weights are views of one vector on `device`.

    What a weight starts with depends on the seed and on its name alone, so two students start with equal shared ones.
    What serves is computed by itself, as if there were no auxiliary heads: while these learn nothing, student and
    control stay equal bit for bit.
    """

    def __init__(self, shape: Shape, device: torch.device = CPU) -> None:
        self.shape = shape
        config, names = shape.config, [task.name for task in shape.tasks]
        self.layers = layers_of(config, shape.dense_width, shape.categorical_width, names)
        self.teacher_heads = {
            head.teacher_task: Layer(f"teacher_head.{head.teacher_task}", config.tower, 1)
            for head in shape.distillation
        }
        values = dict(self._initial())
        table = config.table_rows, config.embedding_dim
        self.embedding_RE = _drawn(EMBEDDING, table, _SMALL_DEVIATION, config.seed).to(device)
        self.flat = torch.cat([value.flatten() for value in values.values()]).to(device)
        parts = torch.split(self.flat, [value.numel() for value in values.values()])
        self.dense = {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}
        self._towers = Towers(*self._together(list(self.layers.towers.values())))
        self._served = Heads(*self._together(list(self.layers.heads.values())))
        self._auxiliary = self._auxiliary_heads() if shape.distillation else None

    def forward(self, inputs: Inputs) -> Activations:
        """The values of every head, and what they come from."""
        crossed, hidden = self._trunk(inputs)
        tower_BX = self._towers.values(hidden[-1])
        value_BO = self._served.values(tower_BX)
        if self._auxiliary:
            value_BO = torch.cat([value_BO, self._auxiliary.values(tower_BX)], dim=1)
        return Activations(crossed, hidden, tower_BX, value_BO)

    def gradient(self, activations: Activations, slope_BO: Tensor) -> tuple[Tensor, Tensor]:
        """Of the loss in all dense weights [V], in the order of `flat`, and in the rows' embeddings [B, C, E].

        `slope_BO`: of the loss in each head's value. An auxiliary head sends its slope on times its `gradient_scale`
        (ExFM): with soft labels near 0 it would hardly move the trunk. Its own weights learn the slope itself.
        """
        tower_BX, served = activations.tower_BX, len(self.layers.heads)
        slope_BX, of_heads = self._served.back(tower_BX, slope_BO[:, :served].contiguous())
        if self._auxiliary:
            auxiliary_BX, of_auxiliary = self._auxiliary.back(tower_BX, slope_BO[:, served:])
            slope_BX = slope_BX + auxiliary_BX
            of_heads += of_auxiliary
        slope_BH, of_towers = self._towers.back(activations.hidden[-1], tower_BX, slope_BX)
        slope_BI, of_trunk = self._through_trunk(activations.hidden, slope_BH)
        slope_BI, of_cross = self._through_cross(activations.crossed, slope_BI)
        parts = [*of_cross, *of_trunk, *of_towers, *of_heads]
        size_BCE = len(slope_BI), self.shape.categorical_width, self.shape.config.embedding_dim
        embedding_BCE = slope_BI[:, self.shape.dense_width :].reshape(size_BCE)
        return torch.cat([part.flatten() for part in parts]), embedding_BCE

    def start_served_head(self, task: str, twin: DistillationConfig) -> None:
        """Give the served head of `task` the weights of its twin's auxiliary head."""
        served, auxiliary = self.layers.heads[task], self.teacher_heads[twin.teacher_task]
        self.dense[served.weight].copy_(self.dense[auxiliary.weight])
        self.dense[served.bias].copy_(self.dense[auxiliary.bias])

    def start_neutral(self, task: str) -> None:
        """Let the served head of `task` give the mean for every row, as before its first step."""
        served = self.layers.heads[task]
        self.dense[served.weight].zero_()
        self.dense[served.bias].zero_()

    def score(self, inputs: Inputs) -> Tensor:
        """The served heads' values [B, K]."""
        _, hidden = self._trunk(inputs)
        return self._served.values(self._towers.values(hidden[-1]))

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, not copied."""
        return {EMBEDDING: self.embedding_RE} | self.dense

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over weights that `tensors` gave."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])

    def _trunk(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """`crossed` and `hidden` of the activations."""
        category_BX = self.embedding_RE[inputs.row_BC].flatten(start_dim=1)
        crossed = [torch.cat([inputs.dense_BD, category_BX], dim=1)]
        for layer in self.layers.cross:
            # DCN-v2 (Wang et al. 2021, eq. 1): x_l+1 = x_0 * (W x_l + b) + x_l.
            crossed.append(crossed[0] * self._apply(layer, crossed[-1]) + crossed[-1])
        hidden = [crossed[-1]]
        for layer in self.layers.trunk:
            hidden.append(self._apply(layer, hidden[-1]).relu_())
        return crossed, hidden

    def _through_trunk(self, hidden: Sequence[Tensor], slope_BH: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The slope in the trunk's inputs from that in its outputs, and the gradient of its weights."""
        parts: list[Tensor] = []
        for layer, (before_BH, after_BH) in reversed(list(zip(self.layers.trunk, pairwise(hidden), strict=True))):
            slope_BH = slope_BH * (after_BH > 0)
            parts = [*of_layer(slope_BH, before_BH), *parts]
            slope_BH = slope_BH @ self.dense[layer.weight]
        return slope_BH, parts

    def _through_cross(self, crossed: Sequence[Tensor], slope_BI: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The slope in the inputs from that in what the last cross layer made of them, and the weights' gradient."""
        parts: list[Tensor] = []
        into_first_BI = torch.zeros_like(slope_BI)
        for layer, before_BI in reversed(list(zip(self.layers.cross, crossed, strict=False))):
            into_first_BI += slope_BI * self._apply(layer, before_BI)
            product_BI = slope_BI * crossed[0]
            parts = [*of_layer(product_BI, before_BI), *parts]
            slope_BI = slope_BI + product_BI @ self.dense[layer.weight]
        return slope_BI + into_first_BI, parts

    def _apply(self, layer: Layer, input_BI: Tensor) -> Tensor:
        return linear(input_BI, self.dense[layer.weight], self.dense[layer.bias])

    def _auxiliary_heads(self) -> Heads:
        heads, tasks = self.shape.distillation, list(self.layers.towers)
        weights = self._together(list(self.teacher_heads.values()))
        towers = places_on([tasks.index(head.student_task) for head in heads], len(tasks), self.flat.device)
        scale_A = torch.tensor([head.gradient_scale for head in heads])
        return Heads(*weights, towers, scale_A.to(self.flat.device))

    def _together(self, layers: Sequence[Layer]) -> tuple[Tensor, Tensor]:
        """The weights of layers that stand together in `flat` as one matrix, and their biases."""
        inputs, outputs = layers[0].inputs, sum(layer.outputs for layer in layers)
        weight, bias = (self.dense[name].storage_offset() for name in (layers[0].weight, layers[0].bias))
        weight_XH = self.flat[weight : weight + outputs * inputs].view(outputs, inputs)
        return weight_XH, self.flat[bias : bias + outputs]

    def _initial(self) -> Iterator[tuple[str, Tensor]]:
        """The dense weights by name: He et al. (2015) before a ReLU, small in cross layers, 0 in heads and biases.

        In the order of the `gradient`; layers of one kind have their weights together, then their biases.
        """
        layers, seed = self.layers, self.shape.config.seed
        served, auxiliary = list(layers.heads.values()), list(self.teacher_heads.values())
        singly = [[layer] for layer in (*layers.cross, *layers.trunk)]
        for together in (*singly, list(layers.towers.values()), served, auxiliary):
            for layer in together:
                deviation = _SMALL_DEVIATION if layer in layers.cross else (2 / layer.inputs) ** 0.5
                size = layer.outputs, layer.inputs
                is_head = layer in (*served, *auxiliary)
                yield layer.weight, torch.zeros(size) if is_head else _drawn(layer.weight, size, deviation, seed)
            for layer in together:
                yield layer.bias, torch.zeros(layer.outputs)


def _drawn(name: str, size: tuple[int, ...], deviation: float, seed: int) -> Tensor:
    """Weights that depend on their name and the seed alone."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(random.standard_normal(size, np.float32) * np.float32(deviation))
