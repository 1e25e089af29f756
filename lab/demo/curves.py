"""The learner's progressive metrics as curves, and how many examples each of its versions has learnt."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from stream.tasks import TaskSpec
from student.evaluate.history import Point
from student.versions.registry import Registry
from student.versions.version_folder import VersionError


class Curve(NamedTuple):
    """The AUC of one arm; `auc` in [0, 1], one value for each number of examples."""

    examples: list[int]
    auc: list[float]


def curve(points: Sequence[Point], task: str, arm: str, slice_name: str = "whole") -> Curve:
    """The AUC of `arm` on `task` where it is defined, over one slice of the examples."""
    metrics = [(p.examples, p.slices.get(slice_name, {}).get(task, {}).get(arm)) for p in points]
    defined = [(examples, m.auc) for examples, m in metrics if m is not None and m.auc is not None]
    return Curve([examples for examples, _ in defined], [auc for _, auc in defined])


def binary_tasks(tasks: Sequence[TaskSpec]) -> list[str]:
    """The names of the tasks that have an AUC, in the project's order."""
    return [task.name for task in tasks if task.kind == "binary"]


class VersionExamples:
    """The number of examples that each published version has learnt; remembers versions that were pruned meanwhile."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.of: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the manifests that are new."""
        for version in self._registry.versions():
            if version not in self.of:
                with suppress(VersionError):  # pruned between the listing and the reading
                    self.of[version] = self._registry.load_manifest(version).examples
