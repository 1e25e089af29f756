"""The learner: examples and teacher logits in, two arms out. Knows neither Kafka nor Redis nor the clock.

Its state is a function of its setup and of the batches alone: same seed, same log, same logits, same weights.
Shapes: B examples, D dense columns, C categorical columns, K tasks, T teacher tasks, A auxiliary heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.spec import FeatureBatch
from graft.errors import InvalidInputError
from stream.events import Example
from student.arm import Arm, Targets
from student.evaluation import ProgressiveEvaluation
from student.hashing import embedding_rows
from student.item_mean import ItemMean
from student.losses import soft_label
from student.model import EMBEDDING, Inputs, Shape
from student.normalizer import RunningMoments
from student.replay_buffer import Batch, Reservoir, concatenate
from student.setup import LearnerSetup
from student.units import Unit, units

Tensors = dict[str, NDArray[Any]]


class Learner:
    """Student and control, which learn from the same examples in the same order, steps and replay draws.

    Both start with the same shared weights; the control has no auxiliary heads. Served heads learn hard labels only,
    unless the loss of a distilled task is "direct".
    """

    def __init__(self, setup: LearnerSetup) -> None:
        self.setup = setup
        self.examples = 0
        self.evaluation = ProgressiveEvaluation(setup.tasks)
        dense, categorical = len(setup.spec.dense_names), len(setup.spec.categorical)
        self._student = Arm(Shape(setup.student, setup.tasks, setup.distillation, dense, categorical))
        self._control = Arm(Shape(setup.student, setup.tasks, (), dense, categorical))
        self._normalizer = RunningMoments(dense)
        self._labels = RunningMoments(len(setup.tasks))
        self._soft_labels = RunningMoments(len(setup.distillation))
        self._item_mean = ItemMean(setup.tasks)
        self._reservoir = Reservoir(setup.student.replay_capacity, setup.student.seed)

    def learn(self, examples: Sequence[Example], logit_BT: NDArray[np.float32]) -> None:
        """Predict B examples, then learn them in one step per arm, together with replayed ones.

        `logit_BT`: the teacher's, in the order of the setup's teacher tasks; a NaN costs that signal, never the step.
        InvalidInputError for an example of another feature spec or without the label of a task.
        """
        # 1. Encode.
        batch = self._batch(examples, logit_BT)
        item_ids = [example.item_id for example in examples]
        # 2. Predict with all that was known before these examples, and judge the predictions.
        user_ids = [example.user_id for example in examples]
        self.evaluation.update(batch.label_BK, self._predictions(batch, item_ids), user_ids, item_ids)
        # 3. Take the examples into the running statistics.
        self._normalizer.update(batch.dense_BD)
        self._labels.update(batch.label_BK)
        self._soft_labels.update(self._soft_targets(batch.logit_BT))
        self._item_mean.update(item_ids, batch.label_BK)
        # 4. One step per arm on the new examples and replayed ones.
        self._step(batch)
        # 5. The examples may be replayed from now on.
        self._reservoir.add(batch)
        self.examples += len(batch)

    def score(self, features: FeatureBatch) -> NDArray[np.float32]:
        """The student's logits (binary) or values (regression) [B, K]: what a version published now would serve."""
        row_BC = embedding_rows(features.categorical_BC, self.setup.student.table_rows)
        return self._score(self._student, self._inputs(features.dense_BD, row_BC))

    def served_tensors(self) -> Tensors:
        """model.safetensors: the student's served part. A head's unit is folded into its weight and bias."""
        tensors = {name: tensor.numpy() for name, tensor in self._student.student.tensors().items()}
        served: Tensors = {"normalizer.mean": self._normalizer.mean, "normalizer.std": self._normalizer.std}
        served |= {name: tensors[name] for name in tensors if name == EMBEDDING or name.startswith("trunk.")}
        for task, unit in zip(self.setup.tasks, self._label_units(), strict=True):
            if not task.served:
                continue
            served |= {name: tensors[name] for name in (f"tower.{task.name}.weight", f"tower.{task.name}.bias")}
            served[f"head.{task.name}.weight"] = tensors[f"head.{task.name}.weight"] * np.float32(unit.scale)
            bias = tensors[f"head.{task.name}.bias"] * np.float32(unit.scale) + np.float32(unit.offset)
            served[f"head.{task.name}.bias"] = bias
        return served

    def tensors(self) -> Tensors:
        """Every tensor that the learner continues from, not copied."""
        return {f"{part}/{name}": _array(t) for part, owner in self._parts() for name, t in owner.tensors().items()}

    def state(self) -> dict[str, Any]:
        """What is not a tensor, as JSON values."""
        return {"examples": self.examples, "setup": self.setup.described(), "reservoir": self._reservoir.state()}

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `state` gave, so that what follows is bit-equal to never having stopped."""
        self.examples = state["examples"]
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
        inputs = self._inputs(batch.dense_BD, batch.row_BC)
        teacher_BK = np.full_like(batch.label_BK, np.nan)
        for k, column in enumerate(self.setup.reference_columns):
            if column is not None:
                teacher_BK[:, k] = batch.logit_BT[:, column]
        arms = [self._score(self._student, inputs), self._score(self._control, inputs), teacher_BK]
        return np.stack([*arms, self._item_mean.score(item_ids)], axis=2)

    def _score(self, arm: Arm, inputs: Inputs) -> NDArray[np.float32]:
        units = self._label_units()
        scale_K = np.array([unit.scale for unit in units], np.float32)
        offset_K = np.array([unit.offset for unit in units], np.float32)
        value_BK: NDArray[np.float32] = arm.student.score(inputs).numpy() * scale_K + offset_K
        return value_BK

    def _step(self, batch: Batch) -> None:
        replayed = self._reservoir.draw(self.setup.student.replay_batches * len(batch))
        rows = batch if replayed is None else concatenate([batch, replayed])
        inputs = self._inputs(rows.dense_BD, rows.row_BC)
        label_KB = list(torch.from_numpy(rows.label_BK).unbind(1))
        logit_AB = [torch.from_numpy(rows.logit_BT[:, column]) for column in self.setup.teacher_columns]
        targets = Targets(label_KB, self._label_units(), logit_AB, self._soft_label_units())
        self._student.step(inputs, targets, self.examples)
        self._control.step(inputs, targets, self.examples)

    def _inputs(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64]) -> Inputs:
        row_N, index = np.unique(row_BC, return_inverse=True)
        normalised_BD = (dense_BD - self._normalizer.mean) / self._normalizer.std
        index_BC = torch.from_numpy(index.reshape(row_BC.shape))
        return Inputs(torch.from_numpy(normalised_BD), torch.from_numpy(row_N), index_BC)

    def _soft_targets(self, logit_BT: NDArray[np.float32]) -> NDArray[np.float32]:
        """What auxiliary heads predict, [B, A]: soft labels at temperature 1, and values of regressions."""
        target_BA = logit_BT[:, list(self.setup.teacher_columns)]
        for i, (config, kind) in enumerate(zip(self.setup.distillation, self.setup.teacher_kinds, strict=True)):
            if kind == "binary":
                target_BA[:, i] = soft_label(config, torch.from_numpy(target_BA[:, i])).numpy()
        return target_BA

    def _label_units(self) -> list[Unit]:
        return units([task.kind for task in self.setup.tasks], self._labels)

    def _soft_label_units(self) -> list[Unit]:
        return units(self.setup.teacher_kinds, self._soft_labels)

    def _parts(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("student", self._student),
            ("control", self._control),
            ("normalizer", self._normalizer),
            ("labels", self._labels),
            ("soft_labels", self._soft_labels),
            ("item_mean", self._item_mean),
            ("reservoir", self._reservoir),
            ("evaluation", self.evaluation),
        )


def _array(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy() if isinstance(tensor, torch.Tensor) else tensor
    return array
