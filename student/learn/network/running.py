"""The statistics of an arm's columns so far: they normalise the inputs and give the heads their units.

Shapes: B rows, D dense columns, C categorical columns, N distinct table rows, K tasks, T teacher tasks, A heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskKind
from student.learn.batch import Batch, weights_of_one
from student.learn.network.heads import TeacherHead, Unit, soft_label
from student.learn.setup import LearnerSetup
from student.versions.served_posterior import seen_of
from student.versions.served_tensors import RunningMoments, normalised


class RunningStatistics:
    """Moments of the dense columns, the labels and, per entry of the distillation, the soft labels."""

    def __init__(self, setup: LearnerSetup) -> None:
        self._setup = setup
        self.normalizer = RunningMoments(len(setup.spec.dense_names))
        self._labels = RunningMoments(len(setup.tasks))
        self._soft_labels = RunningMoments(len(setup.distillation))
        self._label_units = _units([task.kind for task in setup.tasks], self._labels)
        self._seen_D = seen_of(setup.spec, sees_teacher=setup.sees_teacher)

    def update(self, batch: Batch) -> None:
        """Take examples in, before they are learnt."""
        self.normalizer.update(batch.dense_BD)
        self._labels.update(batch.label_BK, batch.weight_B1)
        self._soft_labels.update(self._soft_targets(batch.logit_BT))
        self._follow()

    def start(self, dense_BD: NDArray[np.float32], logit_BT: NDArray[np.float32]) -> None:
        """Take in what the teacher expects of inputs and labels, before the first example; call it once, first."""
        expected_BK = np.full((len(dense_BD), len(self._setup.tasks)), np.nan, np.float32)
        for task, twin in self._setup.twins.items():
            column = self._setup.teacher_column(twin.teacher_task)
            kind = self._setup.teacher_tasks[column].kind
            expected_BK[:, self._setup.task_column(task)] = _expected(kind, logit_BT[:, column])
        no_ids = np.empty((len(dense_BD), 0), np.uint64)
        self.update(Batch(dense_BD, no_ids, expected_BK, logit_BT, weights_of_one(len(dense_BD))))

    def discount(self, examples: int) -> None:
        """Let all that was taken in weigh as `examples` examples at most, so that the stream soon outweighs it."""
        for moments in (self.normalizer, self._labels, self._soft_labels):
            moments.discount(examples)
        self._follow()

    def normalised(self, dense_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Dense columns as the arm's network and posterior see them: 0 in those to which it is blind."""
        return normalised(dense_BD, self.normalizer.mean, self.normalizer.std) * self._seen_D

    def label_units(self) -> list[Unit]:
        """Per task the unit of its served head."""
        return self._label_units

    def teacher_heads(self, weights: Sequence[float]) -> list[TeacherHead]:
        """What each auxiliary head with a weight above 0 learns now; `weights` has one for each distillation."""
        setup = self._setup
        units = _units(setup.teacher_kinds, self._soft_labels)
        entries = zip(setup.distillation, setup.teacher_columns, units, weights, strict=True)
        return [
            TeacherHead(config, place, column, unit, weight)
            for place, (config, column, unit, weight) in enumerate(entries, len(setup.tasks))
            if weight > 0
        ]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {f"{part}.{name}": t for part, moments in self._parts() for name, t in moments.tensors().items()}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        for part, moments in self._parts():
            moments.restore({n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")})
        self._follow()

    def _follow(self) -> None:
        """The units of the labels, which are read several times a step."""
        self._label_units = _units([task.kind for task in self._setup.tasks], self._labels)

    def _soft_targets(self, logit_BT: NDArray[np.float32]) -> NDArray[np.float32]:
        """What auxiliary heads predict, [B, A]: soft labels at temperature 1, and values of regressions."""
        setup = self._setup
        target_BA = logit_BT[:, list(setup.teacher_columns)]
        for i, kind in enumerate(setup.teacher_kinds):
            target_BA[:, i] = _expected(kind, target_BA[:, i])
        return target_BA

    def _parts(self) -> tuple[tuple[str, RunningMoments], ...]:
        return ("normalizer", self.normalizer), ("labels", self._labels), ("soft_labels", self._soft_labels)


def _expected(kind: TaskKind, logit_B: NDArray[np.float32]) -> NDArray[np.float32]:
    """The teacher's logits as soft labels; its values of a regression as they are."""
    return logit_B if kind == "regression" else soft_label(logit_B)


def _units(kinds: Sequence[TaskKind], moments: RunningMoments) -> list[Unit]:
    """A unit for each column of targets that `moments` has seen.

    Binary: the logit of the mean, with one label of each class added (Laplace). Regression: mean and deviation.
    """
    found: list[Unit] = []
    for kind, count, mean, std in zip(kinds, moments.count, moments.mean, moments.std, strict=True):
        if kind == "binary":
            positive = float(mean) * int(count) + 1
            found.append(Unit("binary", float(np.log(positive / (int(count) + 2 - positive))), 1.0))
        else:
            found.append(Unit("regression", float(mean), float(std)))
    return found
