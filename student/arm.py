"""One side of the experiment: a student and its optimizers. Student and control differ in their distillation alone.

Shapes: B rows, K tasks, A auxiliary heads, N distinct table rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from student.config import DistillationConfig
from student.distillation import distillation_loss
from student.losses import distillation_weight
from student.model import Inputs, Shape, Student
from student.optimizers import Adam, RowAdagrad
from student.units import Unit


class Targets(NamedTuple):
    """Labels [K][B] and teacher logits [A][B] of the rows, with the units of labels and soft labels; NaN: none."""

    label_KB: Sequence[Tensor]
    label_units: Sequence[Unit]
    logit_AB: Sequence[Tensor]
    logit_units: Sequence[Unit]


class Arm:
    """Learns step by step."""

    def __init__(self, shape: Shape) -> None:
        self.student = Student(shape)
        self._adam = Adam(self.student.flat, shape.config.learning_rate)
        self._adagrad = RowAdagrad(self.student.embedding_RE, shape.config.embedding_learning_rate)

    def step(self, inputs: Inputs, targets: Targets, examples: int) -> float:
        """One optimizer step on all rows; `examples` learnt so far place the schedules. Returns the loss."""
        touched_NE = self.student.embedding_RE[inputs.row_N].requires_grad_()
        loss = torch.stack(list(self._losses(inputs, touched_NE, targets, examples))).sum()
        leaves = [touched_NE, *self.student.dense.values()]
        table_NE, *dense = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            self._adam.step(torch.cat([gradient.flatten() for gradient in dense]))
            self._adagrad.step(inputs.row_N, table_NE)
        return float(loss.detach())

    def _losses(self, inputs: Inputs, touched_NE: Tensor, targets: Targets, examples: int) -> Iterator[Tensor]:
        outputs = self.student.forward(inputs, touched_NE)
        for value_B, label_B, unit in zip(outputs.served_KB, targets.label_KB, targets.label_units, strict=True):
            yield unit.loss(value_B, label_B)
        for i, config in enumerate(self.student.shape.distillation):
            weight = distillation_weight(config, examples)
            if weight > 0:
                yield from self._distillation(config, weight, outputs.auxiliary_AB[i], targets, i)

    def _distillation(
        self, config: DistillationConfig, weight: float, value_B: Tensor, targets: Targets, head: int
    ) -> Iterator[Tensor]:
        """The loss of one head that learns from the teacher, and that of its adapter."""
        unit, teacher_B = targets.logit_units[head], targets.logit_AB[head]
        if config.reads_labels:
            task = [task.name for task in self.student.shape.tasks].index(config.student_task or "")
            label_unit = targets.label_units[task]
            if config.adapter:
                adapted_B = self.student.adapt(config, unit.own(teacher_B))
                yield label_unit.loss(adapted_B, targets.label_KB[task].where(~teacher_B.isnan(), nan))
                teacher_B = label_unit.natural(adapted_B.detach())
            unit = label_unit
        yield weight * distillation_loss(config, unit, value_B, teacher_B)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        return {f"{part}/{name}": tensor for part, owner in self._parts() for name, tensor in owner.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        for part, owner in self._parts():
            prefix = f"{part}/"
            owner.restore({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})

    def _parts(self) -> tuple[tuple[str, Student | Adam | RowAdagrad], ...]:
        return ("weights", self.student), ("adam", self._adam), ("adagrad", self._adagrad)
