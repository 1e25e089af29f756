"""The student: a shared embedding table, a trunk, a tower per task with its served head, and auxiliary teacher heads.

Shapes: B rows, D dense columns, C categorical columns, N distinct table rows of a batch, R table rows, E embedding,
I = D + C * E inputs, K tasks, A auxiliary heads.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from stream.tasks import TaskSpec
from student.learn.config import DistillationConfig
from student.versions.config import StudentConfig
from student.versions.served_tensors import EMBEDDING, Layer, layers_of

CPU = torch.device("cpu")
_SMALL_DEVIATION = 0.05
_ADAPTER_WIDTH = 8


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
    adapter: Layer | None
    adapter_head: Layer | None

    def present(self) -> Iterator[Layer]:
        """Those that there are."""
        return (layer for layer in self if layer is not None)


class Inputs(NamedTuple):
    """Rows for a student: normalised dense columns, and which of the N distinct table rows each category has."""

    dense_BD: Tensor
    row_N: Tensor
    index_BC: Tensor

    def to(self, device: torch.device) -> "Inputs":
        """The same on `device`."""
        return self if self.dense_BD.device == device else Inputs(*(tensor.to(device) for tensor in self))


class Outputs(NamedTuple):
    """The values of every served head, in the order of the tasks, and of every auxiliary head, in that of the setup."""

    served_KB: list[Tensor]
    auxiliary_AB: list[Tensor]


class Student:
    """The weights by name, and the forward pass. The dense ones are views of one flat vector, `flat`, on `device`.

    What a weight starts with depends on the seed and on its name alone, so two students start with equal shared ones.
    """

    def __init__(self, shape: Shape, device: torch.device = CPU) -> None:
        self.shape = shape
        config, self._tasks = shape.config, [task.name for task in shape.tasks]
        self.layers = layers_of(config, shape.dense_width, shape.categorical_width, self._tasks)
        self.teacher_layers = {head.teacher_task: _teacher_layers(head, config) for head in shape.distillation}
        values = dict(self._initial())
        table = config.table_rows, config.embedding_dim
        self.embedding_RE = _drawn(EMBEDDING, table, _SMALL_DEVIATION, config.seed).to(device)
        self.flat = torch.cat([value.flatten() for value in values.values()]).to(device)
        parts = torch.split(self.flat, [value.numel() for value in values.values()])
        self.dense = {
            name: part.view(value.shape).requires_grad_()
            for (name, value), part in zip(values.items(), parts, strict=True)
        }

    def forward(self, inputs: Inputs, touched_NE: Tensor) -> Outputs:
        """Every head's value per row: a logit (binary) or a value in the head's own unit (regression).

        `touched_NE` are the embeddings of `inputs.row_N`: a leaf of the gradient instead of the whole table.
        """
        hidden_BH = self._crossed(torch.cat([inputs.dense_BD, touched_NE[inputs.index_BC].flatten(start_dim=1)], dim=1))
        for layer in self.layers.trunk:
            hidden_BH = self._apply(layer, hidden_BH).relu()
        towers = {task: self._apply(layer, hidden_BH).relu() for task, layer in self.layers.towers.items()}
        served_KB = [self._apply(layer, towers[task]).squeeze(1) for task, layer in self.layers.heads.items()]
        return Outputs(served_KB, [self._auxiliary(head, hidden_BH, towers) for head in self.shape.distillation])

    def start_served_head(self, task: str, twin: DistillationConfig) -> None:
        """Give the served head of `task` the weights of its twin's auxiliary head."""
        served, auxiliary = self.layers.heads[task], self.teacher_layers[twin.teacher_task].head
        with torch.no_grad():
            self.dense[served.weight].copy_(self.dense[auxiliary.weight])
            self.dense[served.bias].copy_(self.dense[auxiliary.bias])

    def start_neutral(self, task: str) -> None:
        """Let the served head of `task` give the mean for every row, as before its first step."""
        served = self.layers.heads[task]
        with torch.no_grad():
            self.dense[served.weight].zero_()
            self.dense[served.bias].zero_()

    def adapt(self, config: DistillationConfig, teacher_B: Tensor) -> Tensor:
        """The student adapter of ExFM (Liang et al. 2025): the teacher's value as the target's labels would have it.

        A small network in front of the teacher's output, value + MLP(value), in the heads' own units; at first the
        value itself (ExFM has MLP(value) alone). It learns from hard labels alone, and the student from its detached
        output, so that a teacher of another calibration, or of no use, does no harm. A missing value stays missing.
        """
        _, _, adapter, adapter_head = self.teacher_layers[config.teacher_task]
        assert adapter is not None
        assert adapter_head is not None
        present_B = ~torch.isnan(teacher_B)
        value_B1 = torch.where(present_B, teacher_B, 0.0).unsqueeze(1)
        hidden_BH = self._apply(adapter, value_B1).relu()
        adapted_B = (value_B1 + self._apply(adapter_head, hidden_BH)).squeeze(1)
        return torch.where(present_B, adapted_B, torch.nan)

    def score(self, inputs: Inputs) -> Tensor:
        """The served heads' values [B, K], without a gradient."""
        with torch.no_grad():
            return torch.stack(self.forward(inputs, self.embedding_RE[inputs.row_N]).served_KB, dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, not copied."""
        return {EMBEDDING: self.embedding_RE} | {name: weight.detach() for name, weight in self.dense.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over weights that `tensors` gave."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])

    def _crossed(self, input_BI: Tensor) -> Tensor:
        """The inputs after the cross layers of DCN-v2 (Wang et al. 2021, eq. 1): x_l+1 = x_0 * (W x_l + b) + x_l."""
        crossed_BI = input_BI
        for layer in self.layers.cross:
            crossed_BI = input_BI * self._apply(layer, crossed_BI) + crossed_BI
        return crossed_BI

    def _auxiliary(self, config: DistillationConfig, hidden_BH: Tensor, towers: Mapping[str, Tensor]) -> Tensor:
        """On the student task's tower, or on a tower of its own; everything below it sees the scaled gradient."""
        tower, head, *_ = self.teacher_layers[config.teacher_task]
        if tower is None:
            tower_BH = scale_gradient(towers[config.student_task or ""], config.gradient_scale)
        else:
            tower_BH = self._apply(tower, scale_gradient(hidden_BH, config.gradient_scale)).relu()
        return self._apply(head, tower_BH).squeeze(1)

    def _apply(self, layer: Layer, input_BI: Tensor) -> Tensor:
        return linear(input_BI, self.dense[layer.weight], self.dense[layer.bias])

    def _initial(self) -> Iterator[tuple[str, Tensor]]:
        """The dense weights by name: He et al. (2015) before a ReLU, small in cross layers, 0 in heads and biases."""
        teacher = list(self.teacher_layers.values())
        heads = {*self.layers.heads.values(), *(t.head for t in teacher), *(t.adapter_head for t in teacher)}
        layers = [*self.layers.of_tasks(self._tasks), *(layer for t in teacher for layer in t.present())]
        for layer in layers:
            deviation = _SMALL_DEVIATION if layer in self.layers.cross else (2 / layer.inputs) ** 0.5
            for name, size in layer.shapes().items():
                neutral = name == layer.bias or layer in heads
                yield name, torch.zeros(size) if neutral else _drawn(name, size, deviation, self.shape.config.seed)


def scale_gradient(value: Tensor, scale: float) -> Tensor:
    """`value` itself, whose gradient is multiplied by `scale` on its way back: gradient scaling of ExFM.

    With soft labels near 0 an auxiliary head barely moves the trunk; a scale above 1 makes up for it.
    """
    return value if scale == 1.0 else value.detach() + scale * (value - value.detach())


def _teacher_layers(head: DistillationConfig, config: StudentConfig) -> TeacherLayers:
    name, tower = head.teacher_task, config.tower
    return TeacherLayers(
        tower=Layer(f"teacher_tower.{name}", config.trunk[-1], tower) if head.student_task is None else None,
        head=Layer(f"teacher_head.{name}", tower, 1),
        adapter=Layer(f"adapter.{name}", 1, _ADAPTER_WIDTH) if head.adapter else None,
        adapter_head=Layer(f"adapter_head.{name}", _ADAPTER_WIDTH, 1) if head.adapter else None,
    )


def _drawn(name: str, size: tuple[int, ...], deviation: float, seed: int) -> Tensor:
    """Weights that depend on their name and the seed alone."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(random.standard_normal(size, np.float32) * np.float32(deviation))
