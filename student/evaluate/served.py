"""Served metrics: every example is also judged on what serving would have said of it when its impression came.

Shapes: B examples, K tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureBatch, together
from stream.tasks import TaskSpec
from student.evaluate.arms import SERVED_ARMS
from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.gate import Gate
from student.evaluate.served_versions import ServedVersions
from student.versions.gate import GateRecord
from student.versions.manifest import Manifest, Metrics

_AT_A_TIME = 256
"""Examples that are predicted together: 32 of them take half as long, for numpy's calls are what costs."""


class JudgedExamples(NamedTuple):
    """B examples as a learner has judged them."""

    features: FeatureBatch
    time_B: NDArray[np.int64]
    """Event times of their impressions, in ms."""
    number_B: NDArray[np.int64]
    """How many examples came before each."""
    label_BK: NDArray[np.float32]
    user_B: NDArray[np.uint64]
    weight_B: NDArray[np.float32]
    """How many impressions each stands for."""
    new_2B: NDArray[np.bool_]
    """Whether item and user are new."""


class ServedEvaluation:
    """The metrics of what published versions say. It takes examples in, and gives nothing to who learns them.

    `gate` is told of the same examples.

    Its state depends on when versions were published, which the wall clock decides, and so is no part of a learner's.
    """

    def __init__(self, tasks: Sequence[TaskSpec], versions: ServedVersions, gate: Gate | None = None) -> None:
        self._tasks = len(tasks)
        self._evaluation = ProgressiveEvaluation(tasks, SERVED_ARMS)
        self._versions = versions
        self.gate = gate
        self._waiting: list[JudgedExamples] = []
        self._reached_ms = np.zeros(1, np.int64)

    @property
    def kept(self) -> list[str]:
        """The versions that later examples may still need."""
        return self._versions.names

    def update(self, examples: JudgedExamples) -> None:
        """Judge these examples, at once or with some that follow.

        A version that is published meanwhile has learnt them, so it is not asked.
        """
        self._waiting.append(examples)
        if sum(len(each.time_B) for each in self._waiting) >= _AT_A_TIME:
            self._judge()

    def meet_drawn(self) -> None:
        """Among the examples there are, or will be, drawn negatives."""
        self._evaluation.meet_drawn()

    def published(self, manifest: Manifest) -> None:
        """A version that later examples may be served by."""
        self._judge()
        self._versions.add(manifest, int(self._reached_ms[0]))

    def whole(self) -> Metrics:
        """Over all examples; see `ProgressiveEvaluation`."""
        self._judge()
        return self._evaluation.whole()

    def slices(self) -> dict[str, Metrics]:
        """Every slice."""
        self._judge()
        return self._evaluation.slices()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state but for the names of versions; not copied."""
        self._judge()
        own = self._evaluation.tensors() | {"reached": self._reached_ms}
        return own | (self.gate.tensors() if self.gate else {})

    def restore(
        self, tensors: Mapping[str, NDArray[Any]], versions: Sequence[str], record: GateRecord | None = None
    ) -> None:
        """Go on from what `tensors` gave, if anything, with these versions and the gate's last record."""
        if tensors:
            self._evaluation.restore(tensors)
            self._reached_ms[...] = tensors["reached"]
        self._versions.restore(versions)
        if self.gate is not None:
            self.gate.restore(tensors, record)

    def _judge(self) -> None:
        if not self._waiting:
            return
        features = together(each.features for each in self._waiting)
        time_B, number_B, label_BK, user_B, weight_B = (
            np.concatenate(columns) for columns in zip(*(each[1:-1] for each in self._waiting), strict=True)
        )
        new_2B = np.concatenate([each.new_2B for each in self._waiting], axis=1)
        self._waiting = []
        served = self._versions.predict(features, time_B, self._tasks)
        age_B = (number_B - served.learnt_B).astype(np.float32)
        self._evaluation.update(label_BK, served.value_BKA, user_B, new_2B, age_B, weight_B=weight_B)
        if self.gate is not None:
            self.gate.update(features, label_BK, user_B, weight_B, served)
        self._reached_ms[0] = time_B.min()
