"""The student: a shared embedding table, a trunk, a tower per task with its served head, and auxiliary teacher heads.

Shapes: B rows, D dense columns, C categorical columns, N distinct table rows of a batch, R table rows, E embedding,
I = D + C * E inputs, K tasks, A auxiliary heads.
"""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from stream.tasks import TaskSpec
from student.learn.config import DistillationConfig
from student.learn.losses import scale_gradient
from student.versions.config import StudentConfig

CPU = torch.device("cpu")
EMBEDDING = "embedding.weight"
_SMALL_DEVIATION = 0.05
_ADAPTER_WIDTH = 8


class Shape(NamedTuple):
    """What fixes a student's tensors. The control's `distillation` is empty."""

    config: StudentConfig
    tasks: tuple[TaskSpec, ...]
    distillation: tuple[DistillationConfig, ...]
    dense_width: int
    categorical_width: int


class Inputs(NamedTuple):
    """Rows for a student: normalised dense columns, and which of the N distinct table rows each category has."""

    dense_BD: Tensor
    row_N: Tensor
    index_BC: Tensor

    def to(self, device: torch.device) -> "Inputs":
        """The same on `device`."""
        return self if self.dense_BD.device == device else Inputs(*(tensor.to(device) for tensor in self))


class Outputs(NamedTuple):
    """Of every served head in the order of the tasks; and of the head that learns each distilled teacher task.

    The latter is an auxiliary head, or, with loss "direct", the served head itself.
    """

    served_KB: list[Tensor]
    auxiliary_AB: list[Tensor]


class Student:
    """Weights by name, and the function they make. The dense ones are views of one flat vector, `flat`.

    Weights that two students of one seed both have start equal, whatever else either has. They stay on `device`.
    """

    def __init__(self, shape: Shape, device: torch.device = CPU) -> None:
        self.shape = shape
        values = {name: _initial(name, size, shape.config.seed) for name, size in _sizes(shape).items()}
        table = shape.config.table_rows, shape.config.embedding_dim
        self.embedding_RE = _initial(EMBEDDING, table, shape.config.seed).to(device)
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
        for i in range(len(self.shape.config.trunk)):
            hidden_BH = self._layer(f"trunk.{i}", hidden_BH).relu()
        towers = {t.name: self._layer(f"tower.{t.name}", hidden_BH).relu() for t in self.shape.tasks}
        served = {t.name: self._layer(f"head.{t.name}", towers[t.name]).squeeze(1) for t in self.shape.tasks}
        auxiliary_AB = [
            served[d.student_task or ""] if d.loss == "direct" else self._auxiliary(d, hidden_BH, towers)
            for d in self.shape.distillation
        ]
        return Outputs(list(served.values()), auxiliary_AB)

    def start_served_head(self, task: str, twin: DistillationConfig) -> None:
        """Give the served head of `task` the weights of its twin's auxiliary head, if that has one."""
        if twin.loss != "direct":
            with torch.no_grad():
                for part in ("weight", "bias"):
                    auxiliary = self.dense[f"teacher_head.{twin.teacher_task}.{part}"]
                    self.dense[f"head.{task}.{part}"].copy_(auxiliary)

    def start_neutral(self, task: str) -> None:
        """Let the served head of `task` say the mean of every row, as before its first step."""
        with torch.no_grad():
            for part in ("weight", "bias"):
                self.dense[f"head.{task}.{part}"].zero_()

    def adapt(self, config: DistillationConfig, teacher_B: Tensor) -> Tensor:
        """The student adapter of ExFM (Liang et al. 2025): the teacher's value as the target's labels would have it.

        A small network in front of the teacher's output, value + MLP(value), in the heads' own units; at first the
        value itself (ExFM has MLP(value) alone). It learns from hard labels alone, and the student from its detached
        output, so that a teacher of another calibration, or of no use, does no harm. A missing value stays missing.
        """
        present_B = ~torch.isnan(teacher_B)
        value_B1 = torch.where(present_B, teacher_B, 0.0).unsqueeze(1)
        hidden_BH = self._layer(f"adapter.{config.teacher_task}", value_B1).relu()
        adapted_B = (value_B1 + self._layer(f"adapter_head.{config.teacher_task}", hidden_BH)).squeeze(1)
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
        for i in range(self.shape.config.cross_layers):
            crossed_BI = input_BI * self._layer(f"trunk.cross.{i}", crossed_BI) + crossed_BI
        return crossed_BI

    def _auxiliary(self, config: DistillationConfig, hidden_BH: Tensor, towers: Mapping[str, Tensor]) -> Tensor:
        """On the twin's tower, or on a tower of its own; everything below it sees the scaled gradient."""
        if config.student_task is not None:
            tower_BH = scale_gradient(towers[config.student_task], config.gradient_scale)
        else:
            shared_BH = scale_gradient(hidden_BH, config.gradient_scale)
            tower_BH = self._layer(f"teacher_tower.{config.teacher_task}", shared_BH).relu()
        return self._layer(f"teacher_head.{config.teacher_task}", tower_BH).squeeze(1)

    def _layer(self, name: str, input_BI: Tensor) -> Tensor:
        return linear(input_BI, self.dense[f"{name}.weight"], self.dense[f"{name}.bias"])


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The dense weights: a layer has weight [out, in] and bias [out]."""
    config = shape.config
    layers: dict[str, tuple[int, int]] = {}
    width = shape.dense_width + shape.categorical_width * config.embedding_dim
    for i in range(config.cross_layers):
        layers[f"trunk.cross.{i}"] = (width, width)
    for i, out in enumerate(config.trunk):
        layers[f"trunk.{i}"] = (out, width)
        width = out
    for task in shape.tasks:
        layers[f"tower.{task.name}"] = (config.tower, width)
        layers[f"head.{task.name}"] = (1, config.tower)
    for head in shape.distillation:
        layers |= _distillation_layers(head, config.tower, width)
    return {
        f"{layer}.{part}": size
        for layer, (out, into) in layers.items()
        for part, size in (("weight", (out, into)), ("bias", (out,)))
    }


def _distillation_layers(head: DistillationConfig, tower: int, width: int) -> dict[str, tuple[int, int]]:
    layers: dict[str, tuple[int, int]] = {}
    if head.student_task is None:
        layers[f"teacher_tower.{head.teacher_task}"] = (tower, width)
    if head.loss != "direct":
        layers[f"teacher_head.{head.teacher_task}"] = (1, tower)
    if head.adapter:
        layers[f"adapter.{head.teacher_task}"] = (_ADAPTER_WIDTH, 1)
        layers[f"adapter_head.{head.teacher_task}"] = (1, _ADAPTER_WIDTH)
    return layers


def _initial(name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """By its name: He et al. (2015) before a ReLU, small for embeddings and cross layers, 0 for heads and biases."""
    if name.endswith(".bias") or name.startswith(("head.", "teacher_head.", "adapter_head.")):
        return torch.zeros(size)
    small = name == EMBEDDING or name.startswith("trunk.cross.")
    deviation = _SMALL_DEVIATION if small else (2 / size[-1]) ** 0.5
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy(random.standard_normal(size, np.float32) * np.float32(deviation))
