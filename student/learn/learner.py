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
from student.evaluate.arms import ItemMean
from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.newness import Newness
from student.evaluate.served import JudgedExamples, ServedEvaluation
from student.learn.batch import (
    Batch,
    Encoded,
    concatenate,
    encode,
    raise_first,
    weights_of_one,
)
from student.learn.config import FEWEST_ROWS
from student.learn.exchange import ALONE, Exchange
from student.learn.network.arm import Arm, as_array, least_explained
from student.learn.network.bounds import Bounds
from student.learn.network.model import CPU
from student.learn.network.open_step import OpenStep, Predicted
from student.learn.network.replay_buffer import Reservoir
from student.learn.posterior.guard import Guard
from student.learn.posterior.posterior import Posterior
from student.learn.posterior.posterior_kernel import Places, Rows
from student.learn.setup import LearnerSetup
from student.versions.manifest import BOOTSTRAPPED, FORMERLY_BOOTSTRAPPED
from student.versions.served_posterior import units_of
from student.versions.served_tensors import SHARED, of_control
from student.versions.served_tensors import WEIGHT as GUARD_WEIGHT

Tensors = dict[str, NDArray[Any]]

_STUDENT = 0
"""The place of the student among the models of the posterior; the control follows."""


class Learner:
    """Student and control, which learn from the same examples in the same order, steps and replay draws.

    Each has a network and a posterior, which gives its value; the student's answer is the guard's mean of both values.
    Both start with the same shared weights; the control has no auxiliary heads, and its posterior sees no teacher.
    Served heads and posteriors learn hard labels only.

    With an `exchange` of several ranks each holds the whole state and learns the same examples; a rank computes the
    gradients of its own part of a step's rows. Weights and steps are on `device`. `served` is told of every example
    that is judged.
    """

    def __init__(
        self,
        setup: LearnerSetup,
        exchange: Exchange = ALONE,
        device: torch.device = CPU,
        served: ServedEvaluation | None = None,
    ) -> None:
        self.setup = setup
        self._exchange = exchange
        self._device = device
        self._served = served
        self.examples = 0
        self.learnt_until_ms = 0
        self._window_ms = max(round(task.window_seconds * 1000) for task in setup.tasks)
        self.evaluation = ProgressiveEvaluation(setup.tasks)
        self._newness = Newness()
        self.bootstrapped_rows = 0
        self._student = self._new_student()
        self._control = Arm(setup.control(), exchange, device)
        self._posterior = Posterior(setup, sees_teacher=(True, False))
        self._guard = Guard(setup.tasks)
        self._item_mean = ItemMean(setup.tasks)
        self._bounds = Bounds(setup)
        self._reservoir = Reservoir(setup.student.replay_capacity, setup.student.seed)
        self._open = OpenStep()

    @property
    def judged(self) -> int:
        """The examples whose predictions are judged: all but those of the open step."""
        return self.examples - len(self._open)

    @property
    def room(self) -> int:
        """How many more examples the open step takes: the networks take a step when it is full.

        The first steps are small, of 1, 1, 2, 4, ... examples, so that the units of columns and labels are known early.
        """
        return min(max(self.judged, 1), self.setup.student.micro_batch) - len(self._open)

    def learn(self, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> bool:
        """As `learn_encoded`; InvalidInputError for an example that cannot be learnt, see `fault_of`."""
        rows = encode(self.setup, examples)
        raise_first(rows.faults)
        return self.learn_encoded(rows, logit_BT)

    def learn_encoded(self, examples: Encoded, logit_BT: NDArray[np.float32]) -> bool:
        """Predict B examples, then learn them: the posteriors row by row, the networks whenever a step is full.

        What is learnt does not depend on how a log is cut into calls. `logit_BT`: the teacher's, in the order of the
        setup's teacher tasks; a NaN costs that signal, never the step. False when a step would have made the weights of
        an arm not finite: then neither arm took it, and its examples are never replayed.
        """
        batch = examples.with_logits(logit_BT, self.setup.logits_from_ms)
        time_B, user_B, item_B = examples.time_B, examples.user_B, examples.item_B
        if examples.drawn_B.any():
            self.evaluation.meet_drawn()
            if self._served is not None:
                self._served.meet_drawn()
        taken, first = True, 0
        while first < len(batch):
            rows = slice(first, first + self.room)
            self._learn_rows(batch.part(rows), time_B[rows], user_B[rows], item_B[rows])
            first = rows.stop
            taken = (self.room > 0 or self._take_step()) and taken
        return taken

    def _learn_rows(
        self, batch: Batch, time_B: NDArray[np.int64], user_B: NDArray[np.uint64], item_B: NDArray[np.uint64]
    ) -> None:
        """The posteriors predict each of these rows, then learn it; the open step has room for them."""
        bounded, places = self._bounds.apply(batch), self._posterior.take(batch.category_BC)
        value_MBK = self._posterior.learn(places, self._rows(bounded, places, first=len(self._open)))
        answer_MBK = self._guard.learn(value_MBK, bounded.label_BK, bounded.weight_B1)
        self._open.add(Predicted(batch, answer_MBK.transpose(1, 0, 2), time_B, user_B, item_B))
        self.examples += len(batch)
        self.learnt_until_ms = max(self.learnt_until_ms, int(time_B.max()) + self._window_ms)

    def _take_step(self) -> bool:
        """The networks and all running statistics learn the examples of the open step, which are judged with it."""
        raw, value_BMK, time_B, user_B, item_B = self._open.take()
        # 1. Let the bounds follow; leave out labels and logits beyond them.
        batch, counted = self._bounds.learn(raw)
        # 2. Judge the predictions beside the references, which see the examples before the step.
        reference_BKA = self._references(batch, item_B)
        new_2B = self._newness.update(user_B, item_B)
        weight_B = batch.weight_B1[:, 0]
        self.evaluation.update(batch.label_BK, _beside(value_BMK, reference_BKA), user_B, new_2B, weight_B=weight_B)
        if self._served is not None:
            number_B = np.arange(self.examples - len(batch), self.examples)
            seen = FeatureBatch(raw.dense_BD, raw.category_BC)
            self._served.update(JudgedExamples(seen, time_B, number_B, batch.label_BK, user_B, weight_B, new_2B))
        # 3. Take the examples into the running statistics.
        for arm in (self._student, self._control):
            arm.running.update(counted)
        self._item_mean.update(item_B, batch.label_BK, weight_B)
        # 4. One step of each arm's network on the new examples and replayed ones.
        taken = self._step(batch)
        # 5. The examples may be replayed from now on.
        if taken:
            self._reservoir.add(batch)
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
        label_PK = np.full((len(logit_PT), len(self.setup.tasks)), np.nan, np.float32)
        rows_P = Batch(*features, label_PK, logit_PT.astype(np.float32), weights_of_one(len(logit_PT)))
        pairs = Bounds(self.setup).learn(rows_P)
        arm = self._new_student()
        explained = arm.bootstrap(pairs, steps)
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
        value_BK: NDArray[np.float32] = self._predicted(Batch(*features, nothing_B, nothing_B, nothing_B))[:, _STUDENT]
        return value_BK

    def served_tensors(self) -> Tensors:
        """The tensors of model.safetensors. Units are folded into the networks' heads."""
        weight_K: NDArray[np.float32] = self._guard.weight().astype(np.float32)
        student, control = (
            arm.served() | self._posterior.served(model) for model, arm in enumerate((self._student, self._control))
        )
        return (
            student
            | {of_control(name): tensor for name, tensor in control.items() if name not in SHARED}
            | {GUARD_WEIGHT: weight_K}
        )

    def tensors(self) -> Tensors:
        """Every tensor that the learner continues from; not copied, unless it is on a GPU."""
        return {f"{part}/{name}": as_array(t) for part, owner in self._parts() for name, t in owner.tensors().items()}

    def state(self) -> dict[str, Any]:
        """What is not a tensor, as JSON values."""
        return {
            "examples": self.examples,
            "learnt_until_ms": self.learnt_until_ms,
            BOOTSTRAPPED: self.bootstrapped_rows,
            "setup": self.setup.described(),
            "reservoir": self._reservoir.state(),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `state` gave, so that what follows is bit-equal to never having stopped."""
        self.examples, self.learnt_until_ms = state["examples"], state["learnt_until_ms"]
        self.bootstrapped_rows = state[BOOTSTRAPPED if BOOTSTRAPPED in state else FORMERLY_BOOTSTRAPPED]
        if self.bootstrapped_rows:
            self._student.warm_up()  # the steps that it has taken count
        for part, owner in self._parts():
            found = {n.removeprefix(f"{part}/"): t for n, t in tensors.items() if n.startswith(f"{part}/")}
            if isinstance(owner, Reservoir):
                owner.restore(found, state["reservoir"])
            elif isinstance(owner, Arm):
                weights = {name: torch.from_numpy(tensor) for name, tensor in found.items()}
                owner.restore(weights, state["setup"]["distillation"])
            else:
                owner.restore(found)
        if self.room <= 0:  # the step was open under a larger micro_batch
            self._take_step()

    def _new_student(self) -> Arm:
        """A student that has learnt nothing."""
        return Arm(self.setup, self._exchange, self._device)

    def predictions(self, batch: Batch, item_B: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Of every arm [B, K, A] in the order of ARMS, without learning anything; NaN where an arm has none.

        `item_B`: the hashes of the items.
        """
        return _beside(self._predicted(batch), self._references(batch, item_B))

    def _predicted(self, batch: Batch) -> NDArray[np.float32]:
        """Of both arms [B, M, K]."""
        places = self._posterior.found(batch.category_BC)
        return self._guard.answer(self._posterior.predict(places, self._rows(batch, places))).transpose(1, 0, 2)

    def _rows(self, batch: Batch, places: Places, first: int | None = None) -> Rows:
        """What the posteriors of both arms see of B rows, with their networks as they are now.

        `first`: the place of the first row in the open step. Then the values are the same bits for any cut of the
        step: a matrix product of another shape, or a row in another place of it, may differ in the last ones.
        """
        dense_MBD, network_MBK = [], []
        for arm in (self._student, self._control):
            seen_BD = arm.running.normalised(batch.dense_BD)
            network_MBK.append(self._network(arm, seen_BD, batch, places, first))
            dense_MBD.append(seen_BD * units_of(self._posterior.columns, arm.running.normalizer.std))
        weight_B = batch.weight_B1.ravel()
        return Rows(np.stack(dense_MBD), np.stack(network_MBK), batch.label_BK, batch.logit_BT, weight_B)

    def _network(
        self, arm: Arm, seen_BD: NDArray[np.float32], batch: Batch, places: Places, first: int | None
    ) -> NDArray[np.float32]:
        columns = seen_BD, self._posterior.admitted(batch.category_BC, places, taught=self._is_taught(arm))
        size = self.setup.student.micro_batch
        if first is None or len(batch) == size:
            return arm.score(*columns)
        rows = slice(first, first + len(batch))
        in_step = [np.zeros((size, column.shape[1]), column.dtype) for column in columns]
        for part, column in zip(in_step, columns, strict=True):
            part[rows] = column
        return arm.score(*in_step)[rows]

    def _references(self, batch: Batch, item_B: NDArray[np.uint64]) -> NDArray[np.float32]:
        """What the teacher and the item mean say, [B, K, 2]; NaN where the teacher says nothing."""
        teacher_BK = np.full_like(batch.label_BK, np.nan)
        for k, column in enumerate(self.setup.reference_columns):
            if column is not None:
                teacher_BK[:, k] = batch.logit_BT[:, column]
        return np.stack([teacher_BK, self._item_mean.score(item_B)], axis=2)

    def _step(self, batch: Batch) -> bool:
        """One step of both arms; False, and no arm has moved, when one of them cannot take it."""
        replayed = self._reservoir.draw(self.setup.student.replay_batches * len(batch))
        rows = batch if replayed is None else concatenate([batch, self._bounds.apply(replayed)])
        arms = self._student, self._control
        gradients = [arm.gradient(seen) for arm, seen in zip(arms, self._seen(rows), strict=True)]
        if not all(gradient.is_usable() for gradient in gradients):
            return False
        for arm, gradient in zip(arms, gradients, strict=True):
            arm.descend(gradient)
        return True

    def _seen(self, batch: Batch) -> list[Batch]:
        """The rows as the network of each arm sees them: without the categories that it hardly knows."""
        places = self._posterior.found(batch.category_BC)
        admitted = (
            self._posterior.admitted(batch.category_BC, places, taught=self._is_taught(arm))
            for arm in (self._student, self._control)
        )
        return [batch.replaced(category_BC=admitted_BC) for admitted_BC in admitted]

    def _is_taught(self, arm: Arm) -> bool:
        """Whether the rows of a bootstrap count for an arm."""
        return arm is self._student

    def _parts(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("student", self._student),
            ("control", self._control),
            ("posterior", self._posterior),
            ("guard", self._guard),
            ("open", self._open),
            ("item_mean", self._item_mean),
            ("reservoir", self._reservoir),
            ("evaluation", self.evaluation),
            ("newness", self._newness),
            ("bounds", self._bounds),
        )


def _beside(value_BMK: NDArray[np.float32], reference_BKA: NDArray[np.float32]) -> NDArray[np.float32]:
    """Student, control, then the references: the order of ARMS."""
    return np.concatenate([value_BMK.transpose(0, 2, 1), reference_BKA], axis=2)
