"""Versions for tests: drafts, posteriors that only pass the network on, and controls that are the student."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from features.spec import FeatureSpec
from stream.tasks import TaskSpec
from student.versions import served_posterior as served
from student.versions.manifest import Draft, Manifest, StudentConfig
from student.versions.served_tensors import WEIGHT, of_control, served_columns, tensor_shapes


def draft_of(spec: FeatureSpec, tasks: Sequence[TaskSpec], student: StudentConfig, **changes: Any) -> Draft:
    """A draft that has learnt nothing."""
    fields = {"examples": 0, "offsets": {}, "teacher_version": None, "metrics": {}} | changes
    return Draft(spec=spec, tasks=list(tasks), student=student, **fields)


def manifest_of(draft: Draft, version: str = "v000001") -> Manifest:
    """The manifest with which it is published."""
    return Manifest(**dict(draft), version=version, parent=None, created_at_ms=0, sha256={})


def transparent(manifest: Manifest) -> dict[str, np.ndarray]:
    """Remembers no id, has all embedded, and is sure of the network: the values are the network's, up to 6 in size."""
    columns = served_columns(manifest)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in served.posterior_shapes(columns, 0, 0).items()}
    zeros[served.WEIGHT][:, columns.network] = 1
    zeros[served.BLEND] = np.eye(columns.tasks, 1 + columns.tasks, 1, np.float32)
    zeros[served.UNIT][:, 1] = 1
    for name in (served.USER_KNOWN, served.ID_KNOWN):
        zeros[name][0, served.KnownOrder.admitted] = 1
    return zeros | {name: np.zeros(0, np.uint64) for name in (served.USER_KEY, served.ID_KEY)}


def unguarded(manifest: Manifest, student: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a version whose student answers alone; its control is the same."""
    own = {name: student[name] for name in tensor_shapes(manifest) if name in student}
    control = {of_control(name): tensor for name, tensor in own.items() if of_control(name) in tensor_shapes(manifest)}
    return student | control | {WEIGHT: np.ones(len(manifest.tasks), np.float32)}
