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
from student.learn.config import FEWEST_PAIRS
from student.learn.exchange import ALONE, Exchange
from student.learn.model import CPU, EMBEDDING
from student.learn.replay_buffer import Batch, Reservoir, concatenate
from student.learn.setup import LearnerSetup
from student.versions.hashing import embedding_rows
from teacher_cache.unshown import UnshownRows

Tensors = dict[str, NDArray[Any]]

LEAST_EXPLAINED = 0.01
"""Of the teacher's variance. What belongs to others came out below 0.006 on 500 held-out pairs, our pairs above 0.9."""

_HELD_OUT = 10
"""One in so many pairs of a bootstrap is held out."""

_CHANCE = 9.0
"""Predictions of n rows that have nothing to do with them explain the square of their correlation at most, whose
deviation around 0 is n ** -0.5: here three of them, one time in 700."""


def least_explained(pairs: int) -> float:
    """The share of a teacher task's variance below which a bootstrap on so many pairs has not learnt that task."""
    return max(LEAST_EXPLAINED, _CHANCE / (pairs // _HELD_OUT))


class Learner:
    """Student and control, which learn from the same examples in the same order, steps and replay draws.

    Both start with the same shared weights; the control has no auxiliary heads. Served heads learn hard labels only,
    unless the loss of a distilled task is "direct".

    With an `exchange` of several ranks each holds the whole state and learns the same examples; a rank computes the
    predictions and gradients of its own part of the rows. Weights and steps are on `device`.
    """

    def __init__(self, setup: LearnerSetup, exchange: Exchange = ALONE, device: torch.device = CPU) -> None:
        self.setup = setup
        self._exchange = exchange
        self._device = device
        self.examples = 0
        self.evaluation = ProgressiveEvaluation(setup.tasks)
        self.bootstrapped_pairs = 0
        self._student = Arm(setup, setup.distillation, exchange, device)
        self._control = Arm(setup, (), exchange, device)
        self._item_mean = ItemMean(setup.tasks)
        self._reservoir = Reservoir(setup.student.replay_capacity, setup.student.seed)

    def learn(
        self, examples: Sequence[Example], logit_BT: NDArray[np.float32], unshown: UnshownRows | None = None
    ) -> None:
        """Predict B examples, then learn them in one step per arm, together with replayed ones.

        `logit_BT`: the teacher's, in the order of the setup's teacher tasks; a NaN costs that signal, never the step.
        `unshown`: pairs without labels that the student's auxiliary heads learn in the same step.
        InvalidInputError for an example of another feature spec or without the label of a task.
        """
        # 1. Encode.
        batch = self._batch(examples, logit_BT)
        item_ids = [example.item_id for example in examples]
        # 2. Predict with all that was known before these examples, and judge the predictions.
        user_ids = [example.user_id for example in examples]
        self.evaluation.update(batch.label_BK, self._predictions(batch, item_ids), user_ids, item_ids)
        # 3. Take the examples into the running statistics.
        for arm in (self._student, self._control):
            arm.running.update(batch)
        self._item_mean.update(item_ids, batch.label_BK)
        # 4. One step per arm on the new examples and replayed ones.
        self._step(batch, self._unlabelled(unshown))
        # 5. The examples may be replayed from now on.
        self._reservoir.add(batch)
        self.examples += len(batch)

    def bootstrap(self, features: FeatureBatch, logit_PT: NDArray[np.float32], steps: int) -> dict[str, float]:
        """Distil the student from the teacher's logits of P pairs, before the first example; the control is left alone.

        `steps` steps of as many rows as a step of the stream has, pass after pass in a random order of the setup's
        seed. The last tenth of the pairs is held out: the result is, per teacher task, the share of its variance there
        that the student explains. Where that is below `least_explained`, the logits follow from nothing that it sees.
        Served heads then start as the auxiliary heads on their towers; at the teacher's mean alone where the head on
        their tower has not learnt; and neutral without one. When no head has learnt, the student stays as it was.
        InvalidInputError when nothing is distilled, fewer than 100 pairs have logits, or examples were learnt.
        """
        weighted = sum(config.weight > 0 for config in self.setup.distillation)
        with_logits = int(np.isfinite(logit_PT).any(axis=1).sum())
        if self.examples or not weighted or with_logits < FEWEST_PAIRS:
            raise InvalidInputError(
                f"a bootstrap needs a distillation with a weight above 0, {FEWEST_PAIRS} pairs with teacher logits and "
                f"a student without examples, got {weighted} such distillations, {with_logits} pairs with logits, "
                f"{self.examples} examples"
            )
        held_out = len(logit_PT) // _HELD_OUT
        student = self.setup.student
        rows = student.micro_batch * (1 + student.replay_batches)
        index_SB = _passes(len(logit_PT) - held_out, steps, rows, student.seed)
        row_PC = embedding_rows(features.categorical_BC, student.table_rows)
        arm = Arm(self.setup, self.setup.distillation, self._exchange, self._device)
        explained = arm.bootstrap(features.dense_BD, row_PC, logit_PT.astype(np.float32), index_SB, held_out)
        learnt = {task for task, share in explained.items() if share >= least_explained(len(logit_PT))}
        if learnt:
            arm.start_served_heads(learnt)
            self._student = arm
            self.bootstrapped_pairs = len(logit_PT)
        return explained

    def score(self, features: FeatureBatch) -> NDArray[np.float32]:
        """The student's logits (binary) or values (regression) [B, K]: what a version published now would serve."""
        row_BC = embedding_rows(features.categorical_BC, self.setup.student.table_rows)
        return self._student.score(features.dense_BD, row_BC)

    def served_tensors(self) -> Tensors:
        """model.safetensors: the student's served part. A head's unit is folded into its weight and bias."""
        tensors = {name: _array(tensor) for name, tensor in self._student.student.tensors().items()}
        normalizer = self._student.running.normalizer
        served: Tensors = {"normalizer.mean": normalizer.mean, "normalizer.std": normalizer.std}
        served |= {name: tensors[name] for name in tensors if name == EMBEDDING or name.startswith("trunk.")}
        for task, unit in zip(self.setup.tasks, self._student.running.label_units(), strict=True):
            if not task.served:
                continue
            served |= {name: tensors[name] for name in (f"tower.{task.name}.weight", f"tower.{task.name}.bias")}
            served[f"head.{task.name}.weight"] = tensors[f"head.{task.name}.weight"] * np.float32(unit.scale)
            bias = tensors[f"head.{task.name}.bias"] * np.float32(unit.scale) + np.float32(unit.offset)
            served[f"head.{task.name}.bias"] = bias
        return served

    def tensors(self) -> Tensors:
        """Every tensor that the learner continues from; not copied, unless it is on a GPU."""
        return {f"{part}/{name}": _array(t) for part, owner in self._parts() for name, t in owner.tensors().items()}

    def state(self) -> dict[str, Any]:
        """What is not a tensor, as JSON values."""
        return {
            "examples": self.examples,
            "bootstrapped_pairs": self.bootstrapped_pairs,
            "setup": self.setup.described(),
            "reservoir": self._reservoir.state(),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `state` gave, so that what follows is bit-equal to never having stopped."""
        self.examples = state["examples"]
        self.bootstrapped_pairs = state["bootstrapped_pairs"]
        for part, owner in self._parts():
            own = {n.removeprefix(f"{part}/"): t for n, t in tensors.items() if n.startswith(f"{part}/")}
            if isinstance(owner, Reservoir):
                owner.restore(own, state["reservoir"])
            elif isinstance(owner, Arm):
                owner.restore({name: torch.from_numpy(tensor) for name, tensor in own.items()})
            else:
                owner.restore(own)

    def _batch(self, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> Batch:
        for example in examples:
            self._check(example)
        spec = self.setup.spec
        features = spec.encode(spec.columns_of([example.features for example in examples]))
        labels = [[example.labels[task.name] for task in self.setup.tasks] for example in examples]
        row_BC = embedding_rows(features.categorical_BC, self.setup.student.table_rows)
        return Batch(features.dense_BD, row_BC, np.array(labels, np.float32), logit_BT.astype(np.float32))

    def _check(self, example: Example) -> None:
        if example.spec_id != self.setup.spec.spec_id:
            raise InvalidInputError(
                f"example {example.impression_id}: spec_id must be {self.setup.spec.spec_id}, got {example.spec_id}: "
                "it was joined under other features; learn it with the project of its time, or set another topic_prefix"
            )
        missing = [task.name for task in self.setup.tasks if task.name not in example.labels]
        if missing:
            raise InvalidInputError(
                f"example {example.impression_id}: labels must have {', '.join(missing)}, got {sorted(example.labels)}"
            )

    def _predictions(self, batch: Batch, item_ids: Sequence[int | str]) -> NDArray[np.float32]:
        """Of every arm [B, K, A] in the order of evaluation.ARMS; NaN where an arm has none."""
        teacher_BK = np.full_like(batch.label_BK, np.nan)
        for k, column in enumerate(self.setup.reference_columns):
            if column is not None:
                teacher_BK[:, k] = batch.logit_BT[:, column]
        own = self._exchange.own(batch.dense_BD), self._exchange.own(batch.row_BC)
        arms = [torch.from_numpy(arm.score(*own)) for arm in (self._student, self._control)]
        value_ABK = [value_BK.numpy() for value_BK in self._exchange.whole(arms, len(batch))]
        return np.stack([*value_ABK, teacher_BK, self._item_mean.score(item_ids)], axis=2)

    def _unlabelled(self, pairs: UnshownRows | None) -> Batch | None:
        if pairs is None or not pairs.features:
            return None
        features = self.setup.spec.encode(self.setup.spec.columns_of(pairs.features))
        label_UK = np.full((len(pairs.features), len(self.setup.tasks)), np.nan, np.float32)
        row_UC = embedding_rows(features.categorical_BC, self.setup.student.table_rows)
        return Batch(features.dense_BD, row_UC, label_UK, pairs.logit_UT.astype(np.float32))

    def _step(self, batch: Batch, unshown: Batch | None) -> None:
        replayed = self._reservoir.draw(self.setup.student.replay_batches * len(batch))
        rows = batch if replayed is None else concatenate([batch, replayed])
        for arm in (self._student, self._control):
            arm.step(rows, unshown, self.examples)

    def _parts(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("student", self._student),
            ("control", self._control),
            ("item_mean", self._item_mean),
            ("reservoir", self._reservoir),
            ("evaluation", self.evaluation),
        )


def _passes(count: int, steps: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The rows of `steps` steps [S, B]: all `count` of them in a random order, again and again."""
    random = np.random.Generator(np.random.PCG64(seed))
    passes = -(-steps * rows // count)
    index_SB: NDArray[np.int64] = np.concatenate([random.permutation(count) for _ in range(passes)])
    return index_SB[: steps * rows].reshape(steps, rows)


def _array(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor
    return array
