"""One side of the experiment: a student, its optimizers, and what it knows of its columns.

Student and control differ in their distillation alone. Shapes: B rows, K tasks, A distilled teacher tasks, N distinct
table rows, D dense columns, C categorical columns, P pairs, T teacher tasks.
"""

from collections.abc import Collection, Iterator, Mapping
from math import nan
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student.learn.config import DistillationConfig
from student.learn.distillation import distillation_loss, explained
from student.learn.exchange import ALONE, Exchange
from student.learn.losses import distillation_weight
from student.learn.model import CPU, Inputs, Outputs, Shape, Student
from student.learn.optimizers import Adam, RowAdagrad
from student.learn.replay_buffer import Batch, concatenate
from student.learn.running import RunningStatistics
from student.learn.setup import LearnerSetup
from student.learn.units import Unit

_BOOTSTRAP_WEIGHT = 200
"""Examples that the statistics of a bootstrap count as, beside the stream's."""


class _Targets(NamedTuple):
    """Labels [K][B] and teacher logits [A][B] of the rows, with the units of labels and soft labels; NaN: none."""

    label_KB: tuple[Tensor, ...]
    label_units: list[Unit]
    logit_AB: list[Tensor]
    logit_units: list[Unit]


class Arm:
    """Learns step by step from the labels and from what the setup distils; that of a control distils nothing.

    Weights and optimizers are on `device`. With an `exchange` of several ranks every step is taken by all of them
    together, on the same rows: each computes its own part, and all take the step of the whole.
    """

    def __init__(self, setup: LearnerSetup, exchange: Exchange = ALONE, device: torch.device = CPU) -> None:
        self.running = RunningStatistics(setup)
        dense, categorical = len(setup.spec.dense_names), len(setup.spec.categorical)
        self.student = Student(Shape(setup.student, setup.tasks, setup.distillation, dense, categorical), device)
        self._setup = setup
        self._exchange = exchange
        self._device = device
        self._adam = Adam(self.student.flat, setup.student.learning_rate)
        self._adagrad = RowAdagrad(self.student.embedding_RE, setup.student.embedding_learning_rate)

    def score(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (binary) or values (regression) [B, K] of the served heads."""
        units = self.running.label_units()
        scale_K = np.array([unit.scale for unit in units], np.float32)
        offset_K = np.array([unit.offset for unit in units], np.float32)
        value_BK: NDArray[np.float32] = self.student.score(self._inputs(dense_BD, row_BC)).cpu().numpy()
        return value_BK * scale_K + offset_K

    def step(self, rows: Batch, unshown: Batch | None, examples: int) -> None:
        """One optimizer step on all rows; `examples` learnt so far place the schedules.

        `unshown` rows have no labels: they teach auxiliary heads alone, so a control leaves them out.
        """
        heads = [(config, distillation_weight(config, examples)) for config in self._setup.distillation]
        labelled = len(rows)
        if unshown is not None and any(weight > 0 for _, weight in heads):
            rows = concatenate([rows, unshown])
        self._step(rows, heads, labelled)

    def bootstrap(
        self,
        dense_PD: NDArray[np.float32],
        row_PC: NDArray[np.int64],
        logit_PT: NDArray[np.float32],
        index_SB: NDArray[np.int64],
        held_out: int,
    ) -> dict[str, float]:
        """Learn the teacher alone on P pairs, in a step for each row of `index_SB`, whatever the schedules say.

        A ranking loss leaves the level of a list open, so here the soft label takes its place. Per teacher task the
        share of its variance that its head explains in the last `held_out` pairs.
        """
        self.running.start(dense_PD, logit_PT)
        heads = [(config.pointwise(), config.weight) for config in self._setup.distillation]
        label_BK = np.full((index_SB.shape[1], len(self._setup.tasks)), np.nan, np.float32)
        for index_B in index_SB:
            self._step(Batch(dense_PD[index_B], row_PC[index_B], label_BK, logit_PT[index_B]), heads, len(index_B))
        return self._explained(dense_PD[-held_out:], row_PC[-held_out:], logit_PT[-held_out:])

    def start_served_heads(self, learnt: Collection[str]) -> None:
        """End a bootstrap: a served head starts as its twin's auxiliary head if that teacher task is `learnt`.

        Else it says the same of every row, the teacher's mean. Adam starts anew: its moments are those of another
        objective.
        """
        for task, twin in self._setup.twins.items():
            if twin.teacher_task in learnt:
                self.student.start_served_head(task, twin)
            else:
                self.student.start_neutral(task)
        self.running.discount(_BOOTSTRAP_WEIGHT)
        self._adam = Adam(self.student.flat, self._setup.student.learning_rate)

    def _explained(
        self, dense_PD: NDArray[np.float32], row_PC: NDArray[np.int64], logit_PT: NDArray[np.float32]
    ) -> dict[str, float]:
        inputs = self._inputs(dense_PD, row_PC)
        with torch.no_grad():
            outputs = self.student.forward(inputs, self.student.embedding_RE[inputs.row_N])
        label_units, units = self.running.label_units(), self.running.soft_label_units()
        share = {}
        for i, (config, column) in enumerate(zip(self._setup.distillation, self._setup.teacher_columns, strict=True)):
            task = config.student_task if config.reads_labels else None
            unit = units[i] if task is None else label_units[self._setup.task_column(task)]
            value_P, logit_P = outputs.auxiliary_AB[i].cpu(), torch.from_numpy(logit_PT[:, column])
            share[config.teacher_task] = explained(config, unit, value_P, logit_P)
        return share

    def _step(self, rows: Batch, heads: list[tuple[DistillationConfig, float]], labelled: int) -> None:
        """A step on all rows; served heads see the first `labelled` of them at most."""
        inputs = self._inputs(rows.dense_BD, rows.row_BC)
        touched_NE = self.student.embedding_RE[inputs.row_N].requires_grad_()
        loss = torch.stack(list(self._losses(inputs, touched_NE, self._targets(rows, labelled), heads))).sum()
        leaves = [touched_NE, *self.student.dense.values()]
        table_NE, *dense = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            gradient_N = torch.cat([gradient.flatten() for gradient in dense])
            gradient_N, table_NE = self._exchange.sum(gradient_N, table_NE)
            self._adam.step(gradient_N)
            self._adagrad.step(inputs.row_N, table_NE)

    def _inputs(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64]) -> Inputs:
        return self.running.inputs(dense_BD, row_BC).to(self._device)

    def _outputs(self, inputs: Inputs, touched_NE: Tensor) -> Outputs:
        """Of all rows; the gradient flows into this rank's own. Every rank has all touched embeddings."""
        own = Inputs(self._exchange.own(inputs.dense_BD), inputs.row_N, self._exchange.own(inputs.index_BC))
        served_Kb, auxiliary_Ab = self.student.forward(own, touched_NE)
        value_B = self._exchange.whole([*served_Kb, *auxiliary_Ab], len(inputs.dense_BD))
        return Outputs(value_B[: len(served_Kb)], value_B[len(served_Kb) :])

    def _targets(self, rows: Batch, labelled: int) -> _Targets:
        logit_AB = []
        for config, column in zip(self._setup.distillation, self._setup.teacher_columns, strict=True):
            logit_B = torch.from_numpy(rows.logit_BT[:, column]).to(self._device)
            served = config.loss == "direct"
            logit_AB.append(torch.cat([logit_B[:labelled], logit_B[labelled:] * nan]) if served else logit_B)
        label_KB = torch.from_numpy(rows.label_BK).to(self._device).unbind(1)
        return _Targets(label_KB, self.running.label_units(), logit_AB, self.running.soft_label_units())

    def _losses(
        self, inputs: Inputs, touched_NE: Tensor, targets: _Targets, heads: list[tuple[DistillationConfig, float]]
    ) -> Iterator[Tensor]:
        outputs = self._outputs(inputs, touched_NE)
        for value_B, label_B, unit in zip(outputs.served_KB, targets.label_KB, targets.label_units, strict=True):
            yield unit.loss(value_B, label_B)
        for i, (config, weight) in enumerate(heads):
            if weight > 0:
                yield from self._distillation_losses(config, weight, outputs.auxiliary_AB[i], targets, i)

    def _distillation_losses(
        self, config: DistillationConfig, weight: float, value_B: Tensor, targets: _Targets, head: int
    ) -> Iterator[Tensor]:
        """The loss of one head that learns from the teacher, and that of its adapter."""
        unit, teacher_B = targets.logit_units[head], targets.logit_AB[head]
        if config.student_task is not None and config.reads_labels:
            task = self._setup.task_column(config.student_task)
            label_unit = targets.label_units[task]
            if config.adapter:
                adapted_b = self.student.adapt(config, self._exchange.own(unit.own(teacher_B)))
                (adapted_B,) = self._exchange.whole([adapted_b], len(teacher_B))
                yield label_unit.loss(adapted_B, targets.label_KB[task].where(~teacher_B.isnan(), nan))
                teacher_B = label_unit.natural(adapted_B.detach())
            unit = label_unit
        yield weight * distillation_loss(config, unit, value_B, teacher_B)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        own = {f"{part}/{name}": tensor for part, owner in self._parts() for name, tensor in owner.tensors().items()}
        return own | {f"running/{name}": torch.from_numpy(tensor) for name, tensor in self.running.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        for part, owner in self._parts():
            owner.restore(_of(part, tensors))
        self.running.restore({name: tensor.numpy() for name, tensor in _of("running", tensors).items()})

    def _parts(self) -> tuple[tuple[str, Student | Adam | RowAdagrad], ...]:
        return ("weights", self.student), ("adam", self._adam), ("adagrad", self._adagrad)


def _of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
