"""What an arm knows of its columns so far: it normalises the inputs and centres the heads.

Shapes: B rows, D dense columns, C categorical columns, N distinct table rows, K tasks, T teacher tasks, A heads.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from student.learn.config import DistillationConfig
from student.learn.losses import soft_label
from student.learn.model import Inputs
from student.learn.replay_buffer import Batch
from student.learn.setup import LearnerSetup
from student.learn.units import Unit, units
from student.versions.normalizer import RunningMoments, normalised

_UNSCALED = DistillationConfig(teacher_task="")


class RunningStatistics:
    """Moments of the dense columns, the labels and, per entry of the distillation, the soft labels."""

    def __init__(self, setup: LearnerSetup) -> None:
        self._setup = setup
        self.normalizer = RunningMoments(len(setup.spec.dense_names))
        self._labels = RunningMoments(len(setup.tasks))
        self._soft_labels = RunningMoments(len(setup.distillation))

    def update(self, batch: Batch) -> None:
        """Take examples in, before they are learnt."""
        self.normalizer.update(batch.dense_BD)
        self._labels.update(batch.label_BK)
        self._soft_labels.update(self._soft_targets(batch.logit_BT))

    def start(self, dense_BD: NDArray[np.float32], logit_BT: NDArray[np.float32]) -> None:
        """Take the teacher's word for what labels will be like, before there is one; once, first of all."""
        expected_BK = np.full((len(dense_BD), len(self._setup.tasks)), np.nan, np.float32)
        for config, column, kind in self._heads():
            if config in self._setup.twins.values():
                target_B = logit_BT[:, column]
                if kind == "binary":
                    target_B = soft_label(_UNSCALED, torch.from_numpy(target_B)).numpy()
                expected_BK[:, self._setup.task_column(config.student_task or "")] = target_B
        self.update(Batch(dense_BD, np.empty((len(dense_BD), 0), np.int64), expected_BK, logit_BT))

    def discount(self, examples: int) -> None:
        """What is known so far counts as `examples` at most from now on, so that the stream soon outweighs it."""
        for moments in (self.normalizer, self._labels, self._soft_labels):
            moments.discount(examples)

    def inputs(self, dense_BD: NDArray[np.float32], row_BC: NDArray[np.int64]) -> Inputs:
        """B rows for the arm's student."""
        row_N, index = np.unique(row_BC, return_inverse=True)
        normalised_BD = normalised(dense_BD, self.normalizer.mean, self.normalizer.std)
        index_BC = torch.from_numpy(index.reshape(row_BC.shape))
        return Inputs(torch.from_numpy(normalised_BD), torch.from_numpy(row_N), index_BC)

    def label_units(self) -> list[Unit]:
        """Per task the unit of its served head."""
        return units([task.kind for task in self._setup.tasks], self._labels)

    def soft_label_units(self) -> list[Unit]:
        """Per entry of the distillation the unit of its auxiliary head, unless that learns in its task's."""
        return units([kind for _, _, kind in self._heads()], self._soft_labels)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {f"{part}.{name}": t for part, moments in self._parts() for name, t in moments.tensors().items()}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        for part, moments in self._parts():
            moments.restore({n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")})

    def _heads(self) -> list[tuple[DistillationConfig, int, Any]]:
        """Per entry of the distillation: it, its column in the teacher's logits, its kind; none for a control."""
        setup = self._setup
        return list(zip(setup.distillation, setup.teacher_columns, setup.teacher_kinds, strict=True))

    def _soft_targets(self, logit_BT: NDArray[np.float32]) -> NDArray[np.float32]:
        """What auxiliary heads predict, [B, A]: soft labels at temperature 1, and values of regressions."""
        heads = self._heads()
        target_BA = logit_BT[:, [column for _, column, _ in heads]]
        for i, (config, _, kind) in enumerate(heads):
            if kind == "binary":
                target_BA[:, i] = soft_label(config, torch.from_numpy(target_BA[:, i])).numpy()
        return target_BA

    def _parts(self) -> tuple[tuple[str, RunningMoments], ...]:
        return ("normalizer", self.normalizer), ("labels", self._labels), ("soft_labels", self._soft_labels)
