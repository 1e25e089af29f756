"""The study's arm that breaks a rule on purpose: served heads learn from the teacher too, not from labels alone.

Shapes: B rows, T teacher tasks.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from student.learn.batch import Batch
from student.learn.config import DistillationConfig
from student.learn.network.arm import Arm, Gradient
from student.learn.network.heads import TeacherHead
from student.learn.network.running import RunningStatistics
from student.learn.setup import LearnerSetup


def direct_faults(direct: Collection[str], distillation: Sequence[DistillationConfig]) -> Iterator[str]:
    """Why a served head cannot learn one of the `direct` teacher tasks."""
    by_task = {config.teacher_task: config for config in distillation}
    for name in direct:
        config = by_task.get(name)
        if config is None:
            yield f"direct: no distilled teacher task {name!r}; there are {', '.join(by_task) or 'none'}"


class DirectArm(Arm):
    """A student whose served heads learn the soft labels of the `direct` teacher tasks beside their own labels.

    `direct_faults` must have found no fault. The auxiliary heads of these tasks learn nothing. For one process.
    """

    def __init__(self, setup: LearnerSetup, direct: Collection[str]) -> None:
        super().__init__(setup)
        self.running = _ServedHeads(setup, direct)
        self._direct = direct

    def gradient(self, rows: Batch, unshown: Batch | None) -> Gradient:
        """As Arm's, but `unshown` rows teach no served head: their logits are for auxiliary heads alone."""
        if unshown is not None:
            logit_BT = unshown.logit_BT.copy()
            logit_BT[:, [self._setup.teacher_column(name) for name in self._direct]] = np.nan
            unshown = unshown.replaced(logit_BT=logit_BT)
        return super().gradient(rows, unshown)

    def start_served_heads(self, learnt: Collection[str]) -> None:
        """As Arm's, but a served head that has learnt the teacher itself stays as it is."""
        trained = {name: weight.clone() for name, weight in self.student.dense.items()}
        super().start_served_heads(learnt)
        for task, twin in self._setup.twins.items():
            if twin.teacher_task in self._direct and twin.teacher_task in learnt:
                head = self.student.layers.heads[task]
                self.student.dense[head.weight].copy_(trained[head.weight])
                self.student.dense[head.bias].copy_(trained[head.bias])


class _ServedHeads(RunningStatistics):
    """Lets the served heads of direct tasks learn the teacher, in their own units, in place of the auxiliary ones."""

    def __init__(self, setup: LearnerSetup, direct: Collection[str]) -> None:
        super().__init__(setup)
        self._direct = direct

    def teacher_heads(self, weights: Sequence[float]) -> list[TeacherHead]:
        """As RunningStatistics', but for those heads."""
        return [self._served(head) for head in super().teacher_heads(weights)]

    def _served(self, head: TeacherHead) -> TeacherHead:
        if head.config.teacher_task not in self._direct:
            return head
        task = self._setup.task_column(head.config.student_task)
        return head._replace(place=task, unit=self.label_units()[task])
