"""One side of the experiment: a student, its optimizers, and the statistics of its columns.

Student and control differ in their distillation alone. Shapes: B rows, K tasks, O heads, T teacher tasks, V dense
weights, R table rows of E numbers, N distinct ones, D dense columns, C categorical columns, P rows, S steps.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from student.learn.batch import Batch, weights_of_one
from student.learn.exchange import ALONE, Exchange
from student.learn.network.bounds import Bounded
from student.learn.network.heads import Lesson, TeacherHead, slopes
from student.learn.network.model import CPU, Inputs, Shape, Student
from student.learn.network.running import RunningStatistics
from student.learn.setup import LearnerSetup
from student.versions.served_tensors import EMBEDDING, MEAN, STD, embedding_rows

_BOOTSTRAP_WEIGHT = 200
"""Examples that the statistics of a bootstrap count as, beside the stream's."""

_HELD_OUT = 10
"""Of the rows of a bootstrap one in this many is held out."""

_LEAST_EXPLAINED = 0.01
"""A share of a teacher task's variance. On 500 held-out rows a student explained below 0.006 of logits that were dealt
out to other rows, and above 0.9 of the logits of the rows themselves."""

_CHANCE = 9.0
"""Divided by n rows: a bound on the share that predictions explain by chance. It is at most the square of their
correlation with the targets, and chance gives a correlation above 3 * n ** -0.5 one time in 700."""

_LARGEST_GRADIENT = 1e15
"""The optimizers sum its squares, in float32. Their steps are bounded by the learning rates, whatever its size."""


_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

WARM_UP = round(2 / (1 - _BETA2))
"""Steps until which Adam's second moments are of few gradients: a step is then nearly as long as the learning rate,
whatever the labels say (Ma and Yarats 2021, On the adequacy of untuned warmup for adaptive optimization)."""


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on one flat vector of all dense weights, with plain state.

    The learning rate rises evenly over `warm_up` steps: 1 for weights that have learnt nothing yet. torch.optim's first
    step imports the compiler (about 2 s), and it has no Adagrad that keeps one number per row of a table.
    """

    def __init__(self, weight_N: Tensor, learning_rate: float, warm_up: int = 1) -> None:
        self._weight_N = weight_N
        self._learning_rate = learning_rate
        self._warm_up = warm_up
        self._first_N = torch.zeros_like(weight_N)
        self._second_N = torch.zeros_like(weight_N)
        self._steps = torch.zeros(1, dtype=torch.int64)  # on the CPU, which reads it

    def step(self, gradient_N: Tensor) -> None:
        """Move the weights one step down `gradient_N`."""
        self._steps += 1
        steps = int(self._steps)
        self._first_N.lerp_(gradient_N, 1 - _BETA1)
        self._second_N.mul_(_BETA2).addcmul_(gradient_N, gradient_N, value=1 - _BETA2)
        size = self._learning_rate * min(steps / self._warm_up, 1.0) / (1 - _BETA1**steps)
        scale_N = self._second_N.sqrt().div_((1 - _BETA2**steps) ** 0.5).add_(_EPSILON)
        self._weight_N.addcdiv_(self._first_N, scale_N, value=-size)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        return {"first": self._first_N, "second": self._second_N, "steps": self._steps}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])


class RowAdagrad:
    """Adagrad (Duchi et al. 2011) with one accumulator per row of a table [R, E]: the mean of its squared gradients."""

    def __init__(self, weight_RE: Tensor, learning_rate: float) -> None:
        self._weight_RE = weight_RE
        self._learning_rate = learning_rate
        self._squares_R = torch.zeros(len(weight_RE), device=weight_RE.device)

    def step(self, row_N: Tensor, gradient_NE: Tensor) -> None:
        """Move the rows `row_N` (distinct); no other row changes."""
        squares_N = self._squares_R[row_N] + gradient_NE.square().mean(dim=1)
        self._squares_R[row_N] = squares_N
        step_NE = gradient_NE * (self._learning_rate / (squares_N.sqrt() + _EPSILON)).unsqueeze(1)
        self._weight_RE[row_N] -= step_NE

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        return {"squares": self._squares_R}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        self._squares_R.copy_(tensors["squares"])


class Gradient(NamedTuple):
    """Where the loss of a step rises: of the dense weights, and of the N table rows that the step touches."""

    dense_V: Tensor
    table_NE: Tensor
    row_N: Tensor

    def is_usable(self) -> bool:
        """Whether a step down it leaves weights and optimizers finite. The same on all ranks."""
        parts = self.dense_V, self.table_NE
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

    def score(self, seen_BD: NDArray[np.float32], category_BC: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Logits (binary) or values (regression) [B, K] of the served heads; `seen_BD` are normalised."""
        units = self.running.label_units()
        scale_K = np.array([unit.scale for unit in units], np.float32)
        offset_K = np.array([unit.offset for unit in units], np.float32)
        value_BK: NDArray[np.float32] = self.student.score(self._inputs(seen_BD, category_BC)).cpu().numpy()
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

    def gradient(self, rows: Batch) -> Gradient:
        """Of the loss of all rows."""
        heads = self.running.teacher_heads([config.weight for config in self._setup.distillation])
        return self._gradient(rows, heads)

    def descend(self, gradient: Gradient) -> None:
        """One step of each optimizer down a gradient, which must be usable."""
        self._adam.step(gradient.dense_V)
        self._adagrad.step(gradient.row_N, gradient.table_NE)

    def bootstrap(self, pairs: Bounded, steps: int) -> dict[str, float]:
        """Learn the teacher alone on P rows, of which the last ones are held out.

        The result is, per teacher task, the share of its variance that its head explains in those held out.
        """
        dense_PD, category_PC, _, logit_PT, _ = pairs.learnt
        config, held_out = self._setup.student, len(dense_PD) // _HELD_OUT
        rows_of_step = config.micro_batch * (1 + config.replay_batches)
        index_SB = _passes(len(dense_PD) - held_out, steps, rows_of_step, config.seed)
        self.running.start(pairs.counted.dense_BD, logit_PT)
        # What is off on the stream is what a bootstrap alone learns.
        weights = [config.weight or 1.0 for config in self._setup.distillation]
        heads = self.running.teacher_heads(weights)
        label_BK = np.full((index_SB.shape[1], len(self._setup.tasks)), np.nan, np.float32)
        weight_B1 = weights_of_one(len(label_BK))
        for index_B in index_SB:
            rows = Batch(dense_PD[index_B], category_PC[index_B], label_BK, logit_PT[index_B], weight_B1)
            gradient = self._gradient(rows, heads)
            if gradient.is_usable():
                self.descend(gradient)
        return self._explained(heads, dense_PD[-held_out:], category_PC[-held_out:], logit_PT[-held_out:])

    def start_served_heads(self, learnt: Collection[str]) -> None:
        """End a bootstrap: a served head starts as its twin's auxiliary head if that teacher task is `learnt`.

        Else its value is the teacher's mean for every row.
        """
        for task, twin in self._setup.twins.items():
            if twin.teacher_task in learnt:
                self.student.start_served_head(task, twin)
            else:
                self.student.start_neutral(task)
        self.running.discount(_BOOTSTRAP_WEIGHT)
        self.warm_up()

    def warm_up(self) -> None:
        """Start Adam anew, with short steps: its moments are those of a bootstrap, whose weights are to stay."""
        self._adam = Adam(self.student.flat, self._setup.student.learning_rate, WARM_UP)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        parts = {f"{part}/{name}": tensor for part, owner in self._parts() for name, tensor in owner.tensors().items()}
        return parts | {f"running/{name}": torch.from_numpy(tensor) for name, tensor in self.running.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], distilled: Sequence[tuple[str, str | None]]) -> None:
        """Take over a state that `tensors` gave. `distilled`: teacher and student task of each head of its student."""
        if any(name.startswith("weights/teacher_tower.") for name in tensors):
            tensors = _without_towers(tensors, distilled, self.student)
        for part, owner in self._parts():
            owner.restore(_of(part, tensors))
        self.running.restore({name: tensor.numpy() for name, tensor in _of("running", tensors).items()})

    def _gradient(self, rows: Batch, heads: Sequence[TeacherHead]) -> Gradient:
        """Of the loss of all rows, in which `heads` alone learn from the teacher. Equal on all ranks."""
        # 1. The values of this rank's part of the rows.
        row_N, index_BC = np.unique(self._table_rows(rows.category_BC), return_inverse=True)
        inputs = self._inputs(self.running.normalised(rows.dense_BD), rows.category_BC)
        activations = self.student.forward(Inputs(*map(self._exchange.own, inputs)))
        # 2. Every rank sees the values of all rows, and where the loss rises in each.
        (value_BO,) = self._exchange.whole([activations.value_BO], len(rows))
        slope_BO = self._exchange.own(self._on_device(self._slopes(as_array(value_BO), heads, rows)))
        # 3. The gradient of this rank's rows, then of all.
        dense_V, embedding_BCE = self.student.gradient(activations, slope_BO)
        table_NE = embedding_BCE.new_zeros((len(row_N), embedding_BCE.shape[2]))
        table_NE.index_put_((self._exchange.own(self._on_device(index_BC)),), embedding_BCE, accumulate=True)
        dense_V, table_NE = self._exchange.sum(dense_V, table_NE)
        return Gradient(dense_V, table_NE, self._on_device(row_N))

    def _slopes(self, value_BO: NDArray[np.float32], heads: Sequence[TeacherHead], rows: Batch) -> NDArray[np.float32]:
        """Of the loss in each head's value: served heads learn from the labels, auxiliary ones from the teacher."""
        units = self.running.label_units()
        lessons = [(Lesson.of_label(k, unit), rows.label_BK[:, k]) for k, unit in enumerate(units)]
        lessons += [(head.lesson(), rows.logit_BT[:, head.column]) for head in heads]
        return slopes(value_BO, lessons, rows.weight_B1[:, 0])

    def _inputs(self, seen_BD: NDArray[np.float32], category_BC: NDArray[np.uint64]) -> Inputs:
        return Inputs(self._on_device(seen_BD), self._on_device(self._table_rows(category_BC)))

    def _table_rows(self, category_BC: NDArray[np.uint64]) -> NDArray[np.int64]:
        return embedding_rows(category_BC, self._setup.student.table_rows)

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _explained(
        self,
        heads: Sequence[TeacherHead],
        dense_PD: NDArray[np.float32],
        category_PC: NDArray[np.uint64],
        logit_PT: NDArray[np.float32],
    ) -> dict[str, float]:
        inputs = self._inputs(self.running.normalised(dense_PD), category_PC)
        value_PO = as_array(self.student.forward(inputs).value_BO)
        share = {}
        for head in heads:
            share[head.config.teacher_task] = head.explained(value_PO[:, head.place], logit_PT[:, head.column])
        return share

    def _parts(self) -> tuple[tuple[str, Student | Adam | RowAdagrad], ...]:
        return ("weights", self.student), ("adam", self._adam), ("adagrad", self._adagrad)


def least_explained(rows: int) -> float:
    """The share of a teacher task's variance below which a bootstrap on so many rows has not learnt that task."""
    return max(_LEAST_EXPLAINED, _CHANCE / (rows // _HELD_OUT))


def _passes(count: int, steps: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The rows of `steps` steps [S, B]: all `count` of them in a random order, again and again."""
    random = np.random.Generator(np.random.PCG64(seed))
    count_of_passes = -(-steps * rows // count)
    index_SB: NDArray[np.int64] = np.concatenate([random.permutation(count) for _ in range(count_of_passes)])
    return index_SB[: steps * rows].reshape(steps, rows)


def as_array(tensor: Tensor | NDArray[Any]) -> NDArray[Any]:
    """The tensor's values; not copied, unless it is on a GPU."""
    array: NDArray[Any] = tensor.cpu().numpy() if isinstance(tensor, Tensor) else tensor
    return array


def _without_towers(
    tensors: Mapping[str, Tensor], distilled: Sequence[tuple[str, str | None]], student: Student
) -> dict[str, Tensor]:
    """Those of an earlier release, in which teacher tasks without a student task had towers of their own, without them.

    Optimizer and statistics have all weights and heads in one vector, in the order of that release.
    """
    names = [name for name in student.dense if not name.startswith("teacher_head.")]
    towers_end = 1 + max(n for n, name in enumerate(names) if name.startswith("tower."))
    parts = "weight", "bias"
    of_towers = [f"teacher_tower.{teacher}.{part}" for part in parts for teacher, task in distilled if task is None]
    of_heads = [f"teacher_head.{teacher}.{part}" for part in parts for teacher, _ in distilled]
    order = [*names[:towers_end], *of_towers, *names[towers_end:], *of_heads]
    kept_V = torch.cat([torch.full((tensors[f"weights/{n}"].numel(),), n in student.dense) for n in order])
    kept_A = torch.tensor([task is not None for _, task in distilled])
    return {
        name: tensor[kept_V]
        if name in ("adam/first", "adam/second")
        else tensor[kept_A]
        if name.startswith("running/soft_labels.")
        else tensor
        for name, tensor in tensors.items()
    }


def _of(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
