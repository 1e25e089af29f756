"""The student: a shared embedding table, a trunk, a tower per task with its served head, and auxiliary teacher heads.

Its gradient is written out: of a network so small, torch's own record of what to differentiate takes several times as
long as the arithmetic. Shapes: B rows, D dense columns, C categorical columns, R table rows, E embedding,
I = D + C * E inputs, V dense weights, W towers of U units, O = K + A heads: K served ones, then A auxiliary ones.
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
from student.learn.network.adapter import Adapter
from student.learn.network.towers import Heads, Towers, of_layer, places_on
from student.versions.config import StudentConfig
from student.versions.served_tensors import EMBEDDING, Layer, layers_of

CPU = torch.device("cpu")
_SMALL_DEVIATION = 0.05


class Shape(NamedTuple):
    """What fixes a student's tensors. The control's `distillation` is empty."""

    config: StudentConfig
    tasks: tuple[TaskSpec, ...]
    distillation: tuple[DistillationConfig, ...]
    dense_width: int
    categorical_width: int


class TeacherLayers(NamedTuple):
    """The layers of one distilled teacher task; none is served. Without a `tower` the head is on its student task's."""

    tower: Layer | None
    head: Layer


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
    """Of the tasks."""
    every_tower_BX: Tensor
    """Of the tasks, then of teacher tasks with towers of their own."""
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
        self.teacher_layers = {head.teacher_task: _teacher_layers(head, config) for head in shape.distillation}
        adapted = [head.teacher_task for head in shape.distillation if head.adapter]
        self.adapters = {task: Adapter.of(task) for task in adapted}
        values = dict(self._initial())
        table = config.table_rows, config.embedding_dim
        self.embedding_RE = _drawn(EMBEDDING, table, _SMALL_DEVIATION, config.seed).to(device)
        self.flat = torch.cat([value.flatten() for value in values.values()]).to(device)
        parts = torch.split(self.flat, [value.numel() for value in values.values()])
        self.dense = {name: part.view(value.shape) for (name, value), part in zip(values.items(), parts, strict=True)}
        self._towers, self._served = self._of_tasks()
        self._own_towers, self._auxiliary = self._of_teacher()

    def forward(self, inputs: Inputs) -> Activations:
        """The values of every head, and what they come from."""
        crossed, hidden = self._trunk(inputs)
        tower_BX = every_tower_BX = self._towers.values(hidden[-1])
        value_BO = self._served.values(tower_BX)
        if self._own_towers:
            every_tower_BX = torch.cat([tower_BX, self._own_towers.values(hidden[-1])], dim=1)
        if self._auxiliary:
            value_BO = torch.cat([value_BO, self._auxiliary.values(every_tower_BX)], dim=1)
        return Activations(crossed, hidden, tower_BX, every_tower_BX, value_BO)

    def gradient(self, found: Activations, slope_BO: Tensor, of_adapters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of the loss in all dense weights [V], in the order of `flat`, and in the rows' embeddings [B, C, E].

        `slope_BO`: of the loss in each head's value. `of_adapters`: in the adapters' weights, in their order. An
        auxiliary head sends its slope on times its `gradient_scale` (ExFM): with soft labels near 0 it would hardly
        move the trunk. Its own weights, and those of a tower of its own, learn the slope itself.
        """
        hidden_BH, (served, towers) = found.hidden[-1], (len(self.layers.heads), found.tower_BX.shape[1])
        slope_BX, of_heads = self._served.back(found.tower_BX, slope_BO[:, :served].contiguous())
        of_own: list[Tensor] = []
        if self._auxiliary:
            into_BX, of_auxiliary = self._auxiliary.back(found.every_tower_BX, slope_BO[:, served:])
            slope_BX = slope_BX + into_BX[:, :towers]
            of_heads += of_auxiliary
        slope_BH, of_towers = self._towers.back(hidden_BH, found.tower_BX, slope_BX)
        if self._own_towers:
            own_BX = found.every_tower_BX[:, towers:]
            into_BH, of_own = self._own_towers.back(hidden_BH, own_BX, into_BX[:, towers:])
            slope_BH = slope_BH + into_BH
        slope_BI, of_trunk = self._through_trunk(found.hidden, slope_BH)
        slope_BI, of_cross = self._through_cross(found.crossed, slope_BI)
        parts = [*of_cross, *of_trunk, *of_towers, *of_own, *of_heads, *of_adapters]
        size_BCE = len(slope_BI), self.shape.categorical_width, self.shape.config.embedding_dim
        embedding_BCE = slope_BI[:, self.shape.dense_width :].reshape(size_BCE)
        return torch.cat([part.flatten() for part in parts]), embedding_BCE

    def start_served_head(self, task: str, twin: DistillationConfig) -> None:
        """Give the served head of `task` the weights of its twin's auxiliary head."""
        served, auxiliary = self.layers.heads[task], self.teacher_layers[twin.teacher_task].head
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

    def _of_tasks(self) -> tuple[Towers, Heads]:
        layers = self.layers
        towers = Towers(*self._together(list(layers.towers.values())))
        return towers, Heads(*self._together(list(layers.heads.values())))

    def _of_teacher(self) -> tuple[Towers | None, Heads | None]:
        """The towers of teacher tasks without a student task, and all auxiliary heads; None where there are none."""
        heads, of_tasks = self.shape.distillation, self.layers.towers
        own = {head.teacher_task: layers.tower for head, layers in self._taught() if layers.tower}
        auxiliary = own_towers = None
        if heads:
            weights = self._together([layers.head for _, layers in self._taught()])
            every = [*of_tasks.values(), *own.values()]
            on_A = [every.index(layers.tower or of_tasks[head.student_task or ""]) for head, layers in self._taught()]
            scale_A = torch.tensor([1.0 if head.teacher_task in own else head.gradient_scale for head in heads])
            places, device = places_on(on_A, len(every), self.flat.device), self.flat.device
            auxiliary = Heads(*weights, places, scale_A.to(device))
        if own:
            tower_XH, bias_X = self._together(list(own.values()))
            scale_W = torch.tensor([head.gradient_scale for head in heads if head.teacher_task in own])
            scale_X = scale_W.repeat_interleave(self.shape.config.tower).to(tower_XH)
            own_towers = Towers(tower_XH, bias_X, scale_X)
        return own_towers, auxiliary

    def _taught(self) -> Iterator[tuple[DistillationConfig, TeacherLayers]]:
        return ((head, self.teacher_layers[head.teacher_task]) for head in self.shape.distillation)

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
        own, adapters = list(self.teacher_layers.values()), [layer for each in self.adapters.values() for layer in each]
        served, auxiliary = list(self.layers.heads.values()), [layers.head for layers in own]
        towers, own_towers = list(self.layers.towers.values()), [layers.tower for layers in own if layers.tower]
        neutral = {*served, *auxiliary, *(adapter.head for adapter in self.adapters.values())}
        singly = [[layer] for layer in (*self.layers.cross, *self.layers.trunk)]
        for together in (*singly, towers, own_towers, served, auxiliary, *([layer] for layer in adapters)):
            for layer in together:
                deviation = _SMALL_DEVIATION if layer in self.layers.cross else (2 / layer.inputs) ** 0.5
                size = layer.outputs, layer.inputs
                drawn = layer not in neutral
                yield layer.weight, _drawn(layer.weight, size, deviation, self._seed) if drawn else torch.zeros(size)
            for layer in together:
                yield layer.bias, torch.zeros(layer.outputs)

    @property
    def _seed(self) -> int:
        return self.shape.config.seed


def _teacher_layers(head: DistillationConfig, config: StudentConfig) -> TeacherLayers:
    name, tower = head.teacher_task, config.tower
    return TeacherLayers(
        tower=Layer(f"teacher_tower.{name}", config.trunk[-1], tower) if head.student_task is None else None,
        head=Layer(f"teacher_head.{name}", tower, 1),
    )


def _drawn(name: str, size: tuple[int, ...], deviation: float, seed: int) -> Tensor:
    """Weights that depend on their name and the seed alone."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(random.standard_normal(size, np.float32) * np.float32(deviation))
