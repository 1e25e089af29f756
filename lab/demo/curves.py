"""The learner's progressive metrics as curves: reads the history and the manifests of a version registry."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from student.evaluate.history import read_history
from student.versions.manifest import Manifest, Metrics
from student.versions.registry import Registry

ARMS = ("student", "control", "teacher", "item_mean")
"""The order in which arms stand in plots and tables."""

Window = Literal["metrics", "recent"]
"""Over all examples so far, or over the most recent ones."""


class ProgressPoint(NamedTuple):
    """Metrics over all `examples` learnt so far, and over the most recent of them."""

    examples: int
    metrics: Metrics
    recent: Metrics


class Curve(NamedTuple):
    """The AUC of one arm; `auc` in [0, 1], one value for each number of examples."""

    examples: list[int]
    auc: list[float]


def read_progress(versions: Path) -> list[ProgressPoint]:
    """The points of the history in `versions` by examples; none where there is none."""
    points = read_history(Registry(versions).metrics_folder)
    return [ProgressPoint(p.examples, p.slices.get("whole", {}), p.slices.get("recent", {})) for p in points]


def curve(points: Sequence[ProgressPoint], task: str, arm: str, window: Window = "metrics") -> Curve:
    """The AUC of `arm` on `task` where it is defined, over all examples or over the recent window."""
    metrics = [(p.examples, getattr(p, window).get(task, {}).get(arm)) for p in points]
    defined = [(examples, m.auc) for examples, m in metrics if m is not None and m.auc is not None]
    return Curve([examples for examples, _ in defined], [auc for _, auc in defined])


class VersionExamples:
    """Published version -> examples it had learnt; remembers versions that the registry has pruned since."""

    def __init__(self, versions: Path) -> None:
        self._versions = versions
        self.of: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the manifests that are new."""
        for path in self._versions.glob("v*/manifest.json"):
            if path.parent.name not in self.of and (manifest := _manifest(path)) is not None:
                self.of[manifest.version] = manifest.examples


def latest_metrics(versions: Path) -> Metrics:
    """The metrics of the newest version; none where there is no version."""
    manifests = [m for p in versions.glob("v*/manifest.json") if (m := _manifest(p)) is not None]
    newest = max(manifests, key=lambda m: m.version, default=None)
    return newest.metrics if newest is not None else {}


def _manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:  # pruned between the listing and the reading
        return None
