"""One side of the experiment: a student, its optimizers, and the statistics of its columns.

Student and control differ in their distillation alone. Shapes: B rows, b rows of one rank, K tasks, A auxiliary heads,
T teacher tasks, N distinct table rows, D dense columns, C categorical columns, P rows, S steps.
"""

from collections.abc import Collection, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student.learn.batch import Batch, concatenate
from student.learn.bounds import Bounded
from student.learn.exchange import ALONE, Exchange
from student.learn.heads import TeacherHead
from student.learn.model import CPU, Inputs, Outputs, Shape, Student
from student.learn.optimizers import Adam, RowAdagrad
from student.learn.running import RunningStatistics
from student.learn.setup import LearnerSetup
from student.versions.served_tensors import EMBEDDING, MEAN, STD

_BOOTSTRAP_WEIGHT = 200
"""Examples that the statistics of a bootstrap count as, beside the stream's."""

_LARGEST_GRADIENT = 1e15
"""The optimizers sum its squares, in float32. Their steps are bounded by the learning rates, whatever its size."""


class Gradient(NamedTuple):
    """Where the loss of a step rises: of the dense weights, and of the N table rows that the step touches."""

    dense_N: Tensor
    row_N: Tensor
    table_NE: Tensor

    def is_usable(self) -> bool:
        """Whether a step down it leaves weights and optimizers finite. The same on all ranks."""
        parts = self.dense_N, self.table_NE
        return all(bool((part.abs() <= _LARGEST_GRADIENT).all()) for part in parts)  # a NaN is not below anything


class Arm:
    """Learns step by step from the labels and from what its setup distils; a control's setup distils nothing.

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

    def score(self, dense_BD: NDArray[np.float32], category_BC: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Logits (binary) or values (regression) [B, K] of the served heads."""
        units = self.running.label_units()
        scale_K = np.array([unit.scale for unit in units], np.float32)
        offset_K = np.array([unit.offset for unit in units], np.float32)
        value_BK: NDArray[np.float32] = self.student.score(self._inputs(dense_BD, category_BC)).cpu().numpy()
        return value_BK * scale_K + offset_K

    def served(self) -> dict[str, NDArray[Any]]:
        """What a version serves of the network, by the names of the student's tensors; units are folded into heads."""
        weights = {name: as_array(tensor) for name, tensor in self.student.tensors().items()}
        tasks = [task.name for task in self._setup.tasks]
        names = [name for layer in self.student.layers.of_tasks(tasks) for name in layer.shapes()]
        moments = {MEAN: self.running.normalizer.mean, STD: self.running.normalizer.std}
        served: dict[str, NDArray[Any]] = moments | {name: weights[name] for name in (EMBEDDING, *names)}
        for task, unit in zip(tasks, self.running.label_units(), strict=True):
            head, scale, offset = self.student.layers.heads[task], np.float32(unit.scale), np.float32(unit.offset)
            served[head.weight], served[head.bias] = weights[head.weight] * scale, weights[head.bias] * scale + offset
        return served

    def gradient(self, rows: Batch, unshown: Batch | None, examples: int) -> Gradient:
        """Of the loss of all rows, with the weights that distillations have after `examples` learnt examples.

        `unshown` rows have no labels: they teach auxiliary heads alone, so an arm without one to teach leaves them out.
        """
        heads = self.running.teacher_heads([config.weight_after(examples) for config in self._setup.distillation])
        if unshown is not None and heads:
            rows = concatenate([rows, unshown])
        return self._gradient(rows, heads)

    def descend(self, gradient: Gradient) -> None:
        """One step of each optimizer down a gradient, which must be usable."""
        with torch.no_grad():
            self._adam.step(gradient.dense_N)
            self._adagrad.step(gradient.row_N, gradient.table_NE)

    def bootstrap(self, pairs: Bounded, index_SB: NDArray[np.int64], held_out: int) -> dict[str, float]:
        """Learn the teacher alone on P rows, in a step for each row of `index_SB`; no weight decays.

        A ranking loss leaves the level of a list open, so here the soft label takes its place. The result is, per
        teacher task, the share of its variance that its head explains in the last `held_out` rows.
        """
        dense_PD, category_PC, _, logit_PT = pairs.learnt
        self.running.start(pairs.counted.dense_BD, logit_PT)
        # What is off on the stream is what a bootstrap alone learns.
        weights = [config.weight or 1.0 for config in self._setup.distillation]
        heads = [head.pointwise() for head in self.running.teacher_heads(weights)]
        label_BK = np.full((index_SB.shape[1], len(self._setup.tasks)), np.nan, np.float32)
        for index_B in index_SB:
            rows = Batch(dense_PD[index_B], category_PC[index_B], label_BK, logit_PT[index_B])
            gradient = self._gradient(rows, heads)
            if gradient.is_usable():
                self.descend(gradient)
        return self._explained(heads, dense_PD[-held_out:], category_PC[-held_out:], logit_PT[-held_out:])

    def start_served_heads(self, learnt: Collection[str]) -> None:
        """End a bootstrap: a served head starts as its twin's auxiliary head if that teacher task is `learnt`.

        Else its value is the teacher's mean for every row. Adam starts anew: its moments are those of another
        objective.
        """
        for task, twin in self._setup.twins.items():
            if twin.teacher_task in learnt:
                self.student.start_served_head(task, twin)
            else:
                self.student.start_neutral(task)
        self.running.discount(_BOOTSTRAP_WEIGHT)
        self._adam = Adam(self.student.flat, self._setup.student.learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        parts = {f"{part}/{name}": tensor for part, owner in self._parts() for name, tensor in owner.tensors().items()}
        return parts | {f"running/{name}": torch.from_numpy(tensor) for name, tensor in self.running.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        for part, owner in self._parts():
            owner.restore(_of(part, tensors))
        self.running.restore({name: tensor.numpy() for name, tensor in _of("running", tensors).items()})

    def _gradient(self, rows: Batch, heads: Sequence[TeacherHead]) -> Gradient:
        """Of the loss of all rows, in which `heads` alone learn from the teacher."""
        # 1. The rows, and the embeddings that they touch.
        inputs = self._inputs(rows.dense_BD, rows.category_BC)
        label_KB, logit_TB = self._columns(rows.label_BK), self._columns(rows.logit_BT)
        touched_NE = self.student.embedding_RE[inputs.row_N].requires_grad_()
        # 2. Every head's value of every row.
        outputs = self._outputs(inputs, touched_NE)
        # 3. Served heads learn from the labels alone.
        heads_and_labels = zip(self.running.label_units(), outputs.served_KB, label_KB, strict=True)
        losses = [unit.loss(value_B, label_B) for unit, value_B, label_B in heads_and_labels]
        # 4. Auxiliary heads learn from the teacher; an adapter learns from the labels, and corrects the teacher first.
        for head in heads:
            teacher_B = logit_TB[head.column]
            if head.labels is not None:
                adapted_B = self._adapted(head, teacher_B)
                losses.append(head.unit.loss(adapted_B, label_KB[head.labels].where(~teacher_B.isnan(), nan)))
                teacher_B = head.unit.natural(adapted_B.detach())
            losses.append(head.loss(outputs.auxiliary_AB[head.place], teacher_B))
        # 5. The gradient of the sum.
        return self._differentiated(torch.stack(losses).sum(), inputs.row_N, touched_NE)

    def _differentiated(self, loss: Tensor, row_N: Tensor, touched_NE: Tensor) -> Gradient:
        """Of all weights; of the table the rows `row_N`, whose embeddings are `touched_NE`. Equal on all ranks."""
        leaves = [touched_NE, *self.student.dense.values()]
        table_NE, *dense = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        dense_N = torch.cat([gradient.flatten() for gradient in dense])
        dense_N, table_NE = self._exchange.sum(dense_N, table_NE)
        return Gradient(dense_N, row_N, table_NE)

    def _inputs(self, dense_BD: NDArray[np.float32], category_BC: NDArray[np.uint64]) -> Inputs:
        return self.running.inputs(dense_BD, category_BC).to(self._device)

    def _columns(self, value_BX: NDArray[np.float32]) -> tuple[Tensor, ...]:
        return torch.from_numpy(value_BX).to(self._device).unbind(1)

    def _outputs(self, inputs: Inputs, touched_NE: Tensor) -> Outputs:
        """Of all rows; the gradient flows into this rank's part alone. Every rank has all touched embeddings."""
        part = Inputs(self._exchange.own(inputs.dense_BD), inputs.row_N, self._exchange.own(inputs.index_BC))
        served_Kb, auxiliary_Ab = self.student.forward(part, touched_NE)
        value_B = self._exchange.whole([*served_Kb, *auxiliary_Ab], len(inputs.dense_BD))
        return Outputs(value_B[: len(served_Kb)], value_B[len(served_Kb) :])

    def _adapted(self, head: TeacherHead, teacher_B: Tensor) -> Tensor:
        """The teacher's values as the head's adapter corrects them, in the head's unit; of all rows, as `_outputs`."""
        teacher_b = self._exchange.own(head.teacher_unit.scaled(teacher_B))
        (adapted_B,) = self._exchange.whole([self.student.adapt(head.config, teacher_b)], len(teacher_B))
        return adapted_B

    def _explained(
        self,
        heads: Sequence[TeacherHead],
        dense_PD: NDArray[np.float32],
        category_PC: NDArray[np.uint64],
        logit_PT: NDArray[np.float32],
    ) -> dict[str, float]:
        inputs = self._inputs(dense_PD, category_PC)
        with torch.no_grad():
            outputs = self._outputs(inputs, self.student.embedding_RE[inputs.row_N])
        share = {}
        for head in heads:
            value_P, teacher_P = outputs.auxiliary_AB[head.place].cpu(), torch.from_numpy(logit_PT[:, head.column])
            share[head.config.teacher_task] = head.explained(value_P, teacher_P)
        return share

    def _parts(self) -> tuple[tuple[str, Student | Adam | RowAdagrad], ...]:
        return ("weights", self.student), ("adam", self._adam), ("adagrad", self._adagrad)


def as_array(tensor: Tensor | NDArray[Any]) -> NDArray[Any]:
    """The tensor's values; not copied, unless it is on a GPU."""
    array: NDArray[Any] = tensor.cpu().numpy() if isinstance(tensor, Tensor) else tensor
    return array


def _of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
