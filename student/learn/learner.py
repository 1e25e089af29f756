"""The learner: examples and teacher logits in, two arms out. Knows neither Kafka nor Redis nor the clock.

Its state is a function of its setup and of the batches alone: same seed, same log, same logits, same weights. Several
partitions are one log only once it is complete: while it grows, the order between them may depend on what has arrived.
Shapes: B examples, D dense columns, C categorical columns, K tasks, T teacher tasks, A auxiliary heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.spec import FeatureBatch
from runtime.errors import InvalidInputError
from stream.events import Example
from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.item_mean import ItemMean
from student.learn.arm import Arm
from student.learn.batch import Batch, concatenate, encoded, encoded_unshown
from student.learn.bounds import Bounds
from student.learn.config import FEWEST_ROWS
from student.learn.exchange import ALONE, Exchange
from student.learn.model import CPU
from student.learn.posterior import Posterior
from student.learn.posterior_kernel import Rows
from student.learn.replay_buffer import Reservoir
from student.learn.setup import LearnerSetup
from student.versions.columns import units_of
from student.versions.manifest import BOOTSTRAPPED, FORMERLY_BOOTSTRAPPED
from student.versions.served_tensors import EMBEDDING, MEAN, STD
from teacher_cache.unshown import UnshownRows

Tensors = dict[str, NDArray[Any]]

LEAST_EXPLAINED = 0.01
"""A share of a teacher task's variance. On 500 held-out rows a student explained below 0.006 of logits that were dealt
out to other rows, and above 0.9 of the logits of the rows themselves."""

_STUDENT = 0
"""The place of the student among the models of the posterior; the control follows."""

_HELD_OUT = 10
"""Of the rows of a bootstrap one in this many is held out."""

_CHANCE = 9.0
"""Divided by n rows: a bound on the share that predictions explain by chance. It is at most the square of their
correlation with the targets, and chance gives a correlation above 3 * n ** -0.5 one time in 700."""


def least_explained(rows: int) -> float:
    """The share of a teacher task's variance below which a bootstrap on so many rows has not learnt that task."""
    return max(LEAST_EXPLAINED, _CHANCE / (rows // _HELD_OUT))


class Learner:
    """Student and control, which learn from the same examples in the same order, steps and replay draws.

    Each has a network and a posterior, which gives its predictions. Both start with the same shared weights; the
    control has no auxiliary heads, and its posterior sees no teacher. Served heads and
    posteriors learn hard labels only.

    With an `exchange` of several ranks each holds the whole state and learns the same examples; a rank computes the
    predictions and gradients of its own part of the rows. Weights and steps are on `device`.
    """

    def __init__(self, setup: LearnerSetup, exchange: Exchange = ALONE, device: torch.device = CPU) -> None:
        self.setup = setup
        self._exchange = exchange
        self._device = device
        self.examples = 0
        self.evaluation = ProgressiveEvaluation(setup.tasks)
        self.bootstrapped_rows = 0
        self._student = self._new_student()
        self._control = Arm(setup.control(), exchange, device)
        self._posterior = Posterior(setup, sees_teacher=(True, False))
        self._item_mean = ItemMean(setup.tasks)
        self._bounds = Bounds(setup)
        self._reservoir = Reservoir(setup.student.replay_capacity, setup.student.seed)

    def learn(
        self, examples: Sequence[Example], logit_BT: NDArray[np.float32], unshown: UnshownRows | None = None
    ) -> bool:
        """Predict B examples, then learn them: the networks in one step, with replayed ones, the posteriors row by row.

        `logit_BT`: the teacher's, in the order of the setup's teacher tasks; a NaN costs that signal, never the step.
        `unshown`: rows without labels that the student's auxiliary heads learn in the same step.
        False when a step would have made the weights of an arm not finite: then neither arm takes it, and the examples
        are not learnt. InvalidInputError for an example that cannot be learnt; see `fault_of`.
        """
        # 1. Encode, and leave out labels and logits beyond reason.
        batch, counted = self._bounds.learn(encoded(self.setup, examples, logit_BT))
        user_ids = [example.user_id for example in examples]
        item_ids = [example.item_id for example in examples]
        # 2. What networks and references say with all that was known before these examples.
        rows, reference_BKA = self._rows(batch), self._references(batch, item_ids)
        # 3. Take the examples into the running statistics.
        for arm in (self._student, self._control):
            arm.running.update(counted)
        self._item_mean.update(item_ids, batch.label_BK)
        # 4. One step of each arm's network on the new examples and replayed ones.
        taken = self._step(batch, encoded_unshown(self.setup, unshown))
        # 5. The posteriors predict each example, then learn it; all predictions are judged.
        posterior = self._posterior.learn if taken else self._posterior.predict
        value_MBK = posterior(batch.category_BC, rows)
        self.evaluation.update(batch.label_BK, _beside(value_MBK, reference_BKA), user_ids, item_ids)
        # 6. The examples may be replayed from now on.
        if taken:
            self._reservoir.add(batch)
            self.examples += len(batch)
        return taken

    def bootstrap(self, features: FeatureBatch, logit_PT: NDArray[np.float32], steps: int) -> dict[str, float]:
        """Distil the student from the teacher's logits of P rows, before the first example; the control is left alone.

        `steps` steps of as many rows as a step of the stream has, pass after pass in a random order of the setup's
        seed. The last tenth of the rows is held out: the result is, per teacher task, the share of its variance there
        that the student explains. A task whose share is below `least_explained` is not learnt. A served head starts as
        the auxiliary head on its tower if that one's task is learnt, else with the teacher's mean for every row, and
        untrained where its tower has no auxiliary head. When no task is learnt, the student stays as it was.
        InvalidInputError when nothing is distilled, fewer than 100 rows have logits, or examples were learnt.
        """
        distilled = len(self.setup.distillation)
        with_logits = int(np.isfinite(logit_PT).any(axis=1).sum())
        if self.examples or not distilled or with_logits < FEWEST_ROWS:
            raise InvalidInputError(
                f"a bootstrap needs a [[distillation]] table, {FEWEST_ROWS} rows with teacher logits and a student "
                f"without examples, got {distilled} such tables, {with_logits} rows with logits, "
                f"{self.examples} examples"
            )
        held_out = len(logit_PT) // _HELD_OUT
        student = self.setup.student
        label_PK = np.full((len(logit_PT), len(self.setup.tasks)), np.nan, np.float32)
        rows = student.micro_batch * (1 + student.replay_batches)
        index_SB = _passes(len(logit_PT) - held_out, steps, rows, student.seed)
        rows_P = Batch(features.dense_BD, features.categorical_BC, label_PK, logit_PT.astype(np.float32))
        pairs = Bounds(self.setup).learn(rows_P)
        arm = self._new_student()
        explained = arm.bootstrap(pairs, index_SB, held_out)
        learnt = {task for task, share in explained.items() if share >= least_explained(len(logit_PT))}
        if learnt:
            arm.start_served_heads(learnt)
            self._student = arm
            self._posterior.start_taught(_STUDENT, features.categorical_BC, arm.running.label_units())
            self.bootstrapped_rows = len(logit_PT)
        return explained

    def score(self, features: FeatureBatch) -> NDArray[np.float32]:
        """The student's logits (binary) or values (regression) [B, K]: what a version published now would serve."""
        nothing_B = np.full((len(features.dense_BD), 0), np.nan, np.float32)
        value_BK: NDArray[np.float32] = self._predicted(Batch(*features, nothing_B, nothing_B))[_STUDENT]
        return value_BK

    def served_tensors(self) -> Tensors:
        """The tensors of model.safetensors: the student's network, units folded into its heads, and its posterior."""
        student, running = self._student.student, self._student.running
        weights = {name: _array(tensor) for name, tensor in student.tensors().items()}
        units = {task.name: unit for task, unit in zip(self.setup.tasks, running.label_units(), strict=True)}
        tasks = [task.name for task in self.setup.tasks]
        names = [name for layer in student.layers.of_tasks(tasks) for name in layer.shapes()]
        served: Tensors = {MEAN: running.normalizer.mean, STD: running.normalizer.std}
        served |= {name: weights[name] for name in (EMBEDDING, *names)}
        for task in tasks:
            head, scale, offset = student.layers.heads[task], units[task].scale, units[task].offset
            served[head.weight] = weights[head.weight] * np.float32(scale)
            served[head.bias] = weights[head.bias] * np.float32(scale) + np.float32(offset)
        return served | self._posterior.served(_STUDENT)

    def tensors(self) -> Tensors:
        """Every tensor that the learner continues from; not copied, unless it is on a GPU."""
        return {f"{part}/{name}": _array(t) for part, owner in self._parts() for name, t in owner.tensors().items()}

    def state(self) -> dict[str, Any]:
        """What is not a tensor, as JSON values."""
        return {
            "examples": self.examples,
            BOOTSTRAPPED: self.bootstrapped_rows,
            "setup": self.setup.described(),
            "reservoir": self._reservoir.state(),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `state` gave, so that what follows is bit-equal to never having stopped."""
        self.examples = state["examples"]
        self.bootstrapped_rows = state[BOOTSTRAPPED if BOOTSTRAPPED in state else FORMERLY_BOOTSTRAPPED]
        for part, owner in self._parts():
            found = {n.removeprefix(f"{part}/"): t for n, t in tensors.items() if n.startswith(f"{part}/")}
            if isinstance(owner, Reservoir):
                owner.restore(found, state["reservoir"])
            elif isinstance(owner, Arm):
                owner.restore({name: torch.from_numpy(tensor) for name, tensor in found.items()})
            else:
                owner.restore(found)

    def _new_student(self) -> Arm:
        """A student that has learnt nothing."""
        return Arm(self.setup, self._exchange, self._device)

    def predictions(self, batch: Batch, item_ids: Sequence[int | str]) -> NDArray[np.float32]:
        """Of every arm [B, K, A] in the order of ARMS, without learning anything; NaN where an arm has none."""
        return _beside(self._predicted(batch), self._references(batch, item_ids))

    def _predicted(self, batch: Batch) -> NDArray[np.float32]:
        return self._posterior.predict(batch.category_BC, self._rows(batch))

    def _rows(self, batch: Batch) -> Rows:
        """What the posteriors of both arms see of B rows, with their networks as they are now."""
        arms = self._student, self._control
        dense_bD, category_bC = self._exchange.own(batch.dense_BD), self._exchange.own(batch.category_BC)
        value_MbK = [torch.from_numpy(arm.score(dense_bD, self._admitted(category_bC, arm))) for arm in arms]
        network_MBK = np.stack([value_BK.numpy() for value_BK in self._exchange.whole(value_MbK, len(batch))])
        dense_MBD = np.stack([self._dense(batch, arm) for arm in arms])
        return Rows(dense_MBD, network_MBK, batch.label_BK, batch.logit_BT)

    def _dense(self, batch: Batch, arm: Arm) -> NDArray[np.float32]:
        """The dense columns in the units of the posterior."""
        unit_D = units_of(self._posterior.columns, arm.running.normalizer.std)
        return arm.running.normalised(batch.dense_BD) * unit_D

    def _references(self, batch: Batch, item_ids: Sequence[int | str]) -> NDArray[np.float32]:
        """What the teacher and the item mean say, [B, K, 2]; NaN where the teacher says nothing."""
        teacher_BK = np.full_like(batch.label_BK, np.nan)
        for k, column in enumerate(self.setup.reference_columns):
            if column is not None:
                teacher_BK[:, k] = batch.logit_BT[:, column]
        return np.stack([teacher_BK, self._item_mean.score(item_ids)], axis=2)

    def _step(self, batch: Batch, unshown: Batch | None) -> bool:
        """One step of both arms; False, and no arm has moved, when one of them cannot take it."""
        replayed = self._reservoir.draw(self.setup.student.replay_batches * len(batch))
        rows = batch if replayed is None else concatenate([batch, self._bounds.apply(replayed)])
        if unshown is not None:
            unshown = self._bounds.apply(unshown)
        arms = self._student, self._control
        gradients = [
            arm.gradient(self._seen_by(arm, rows), unshown and self._seen_by(arm, unshown), self.examples)
            for arm in arms
        ]
        if not all(gradient.is_usable() for gradient in gradients):
            return False
        for arm, gradient in zip(arms, gradients, strict=True):
            arm.descend(gradient)
        return True

    def _seen_by(self, arm: Arm, batch: Batch) -> Batch:
        """The rows as the arm's network sees them."""
        return Batch(batch.dense_BD, self._admitted(batch.category_BC, arm), batch.label_BK, batch.logit_BT)

    def _admitted(self, category_BC: NDArray[np.uint64], arm: Arm) -> NDArray[np.uint64]:
        """The categories without those that the arm's network hardly knows."""
        return self._posterior.admitted(category_BC, taught=arm is self._student)

    def _parts(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("student", self._student),
            ("control", self._control),
            ("posterior", self._posterior),
            ("item_mean", self._item_mean),
            ("reservoir", self._reservoir),
            ("evaluation", self.evaluation),
            ("bounds", self._bounds),
        )


def _beside(value_MBK: NDArray[np.float32], reference_BKA: NDArray[np.float32]) -> NDArray[np.float32]:
    """Student, control, then the references: the order of ARMS."""
    return np.concatenate([value_MBK.transpose(1, 2, 0), reference_BKA], axis=2)


def _passes(count: int, steps: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The rows of `steps` steps [S, B]: all `count` of them in a random order, again and again."""
    random = np.random.Generator(np.random.PCG64(seed))
    passes = -(-steps * rows // count)
    index_SB: NDArray[np.int64] = np.concatenate([random.permutation(count) for _ in range(passes)])
    return index_SB[: steps * rows].reshape(steps, rows)


def _array(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor
    return array
