"""The versions that a learner has published, as far as they are needed to say what serving would have said.

Shapes: B examples, K tasks, V versions kept.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureBatch
from student.versions.manifest import Manifest
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

_log = logging.getLogger(__name__)

MOST_KEPT = 8
"""Versions. Of an attribution window of an hour the version that counts is then up to a quarter of an hour too old."""


class Served(NamedTuple):
    """What versions say of B examples, and how many examples each lies behind what the version had learnt.

    `value_BKA`: logits and values of student and control; NaN, as `learnt_B` is, where no version is old enough.
    `learnt_B`: the examples that the version had learnt. `asked`: the versions, the oldest first.
    """

    value_BKA: NDArray[np.float32]
    learnt_B: NDArray[np.float64]
    asked: list[str]


class ServedVersions:
    """Predicts each example with the newest version whose examples had all closed when its impression came.

    It keeps at most `MOST_KEPT` versions, at even distances in event time. Their folders must stay in the registry; it
    does without one that was removed by hand. Tensors are mapped when a version is first needed, and let go of when
    another has taken over, so memory does not grow.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._kept: list[Manifest] = []
        self._students: dict[str, NumpyStudent] = {}

    @property
    def names(self) -> list[str]:
        """The versions kept, the oldest first."""
        return [kept.version for kept in self._kept]

    def restore(self, names: Sequence[str]) -> None:
        """Keep these versions, the oldest first, as far as they are still there."""
        self._kept = []
        for name in names:
            with suppress(VersionError):
                self._kept.append(self._registry.load_manifest(name))

    def add(self, manifest: Manifest, reached_ms: int) -> None:
        """Keep a new version; one of those before it is dropped when they are too many.

        `reached_ms`: the event time that examples have reached. A version that is older than all of them need is
        dropped first, then the one that leaves the smallest gap.
        """
        self._kept.append(manifest)
        if len(self._kept) > MOST_KEPT:
            del self._kept[self._dispensable(reached_ms)]

    def predict(self, features: FeatureBatch, time_B: NDArray[np.int64], tasks: int) -> Served:
        """What was served of B examples whose impressions came at these event times (ms)."""
        value_BKA = np.full((len(time_B), tasks, 2), np.nan, np.float32)
        learnt_B = np.full(len(time_B), np.nan)
        until_V = np.array([kept.learnt_until_ms for kept in self._kept], np.int64)
        place_B = np.searchsorted(until_V, time_B) - 1  # an example closes when event time has passed its window
        used = {}
        for place in np.unique(place_B[place_B >= 0]).tolist():
            kept, rows_B = self._kept[place], place_B == place
            student = self._student(kept.version)
            if student is None:
                del self._kept[place]
                return self.predict(features, time_B, tasks)
            used[kept.version] = student
            value_BKA[rows_B] = student.values(features.part(rows_B))
            learnt_B[rows_B] = kept.examples
        self._students = used
        return Served(value_BKA, learnt_B, list(used))

    def _student(self, version: str) -> NumpyStudent | None:
        """None where its folder is gone or damaged: then metrics alone are the worse for it, not the learning."""
        if version in self._students:
            return self._students[version]
        try:
            return NumpyStudent(*self._registry.map_model(version), with_control=True)
        except VersionError as error:
            _log.warning("served metrics do without a version that was kept for them: %s", error)
            return None

    def _dispensable(self, reached_ms: int) -> int:
        until = [kept.learnt_until_ms for kept in self._kept]
        if until[1] < reached_ms:
            return 0
        gaps = [after - before for before, after in zip(until[:-2], until[2:], strict=True)]
        return 1 + int(np.argmin(gaps))
