"""What a posterior believes before the first label: the same for every project.

Variances are those of a binary task's log odds. A regression is in deviations of its label, whose noise is at most 1
where that of log odds is pi^2 / 3, so its effects are smaller. Shapes: K tasks, P columns, J slopes of a user.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from student.learn.setup import LearnerSetup
from student.versions.columns import Columns

USER = 0.3
"""Of a user's intercept. It drifts, since people change: at each sighting the variance grows by `DRIFT`."""
DRIFT = 0.002
ID = 0.3
"""Of an item's effect, and of a category's in its own scale."""
LEVEL_REACH = 0.4
"""Times a category's effect: a tenth to a fifth of an item's variance, as many rows share each."""
TASTE = 0.02
"""Of a user's slope on a dense column of the item, and on the item's mean logit."""
TRUST = 0.1
"""Of a user's slope on the network's value."""

BLEND = 0.1
"""Of the weight of each task's value in another's; a task's own is 1 at first, the others' are 0."""

RESIDUAL = 4.0, 3.0
"""Of a regression: so many errors, and the sum of their squares, in deviations of the label."""

EXPECTED = 20.0
"""Labels that those which a bootstrapped network expects count as."""

_REGRESSION = 0.25
"""Times a variance, for a regression."""


class Prior(NamedTuple):
    """Mean and variance of each weight, and variances of a user's slopes and of another id's effect."""

    mean_KP: NDArray[np.float64]
    variance_KP: NDArray[np.float64]
    user_KJ: NDArray[np.float32]
    id_K1: NDArray[np.float32]
    drift_K: NDArray[np.float64]


def prior_of(setup: LearnerSetup, columns: Columns) -> Prior:
    """The prior of every model of a learner."""
    size_K = np.array([1.0 if task.kind == "binary" else _REGRESSION for task in setup.tasks])
    mean_KP, variance_KP = _weights(columns, size_K)
    for k, teacher_task in enumerate(setup.reference_columns):
        if teacher_task is not None:
            own = [*_running(columns, teacher_task), *_profiles(columns, teacher_task)]
            mean_KP[k, own], variance_KP[k, own] = 0.5 * size_K[k] ** 0.5, 0.25 * size_K[k]
    user_J = np.full(columns.slopes, TASTE)
    user_J[0], user_J[-2] = USER, TRUST
    return Prior(
        mean_KP,
        variance_KP,
        user_KJ=(size_K[:, None] * user_J).astype(np.float32),
        id_K1=(size_K[:, None] * ID).astype(np.float32),
        drift_K=DRIFT * size_K,
    )


def _running(columns: Columns, teacher_task: int) -> range:
    """The running mean logits of a teacher task, of user and item."""
    first = columns.teacher.start + 2 * teacher_task
    return range(first, first + 2)


def _profiles(columns: Columns, teacher_task: int) -> list[int]:
    """The profiles that are mean logits of a teacher task."""
    return [columns.dense.start + d for d in columns.profiles[teacher_task]]


def _weights(columns: Columns, size_K: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean_KP, variance_KP = np.zeros((2, len(size_K), columns.width))
    means, counts = (slice(columns.aggregates.start + i, columns.aggregates.stop, 2) for i in range(2))
    # Between values in the same unit a slope has no unit, so it is alike for both kinds of task.
    for part, mean, variance in (
        (means, 0.4, 0.1),
        (columns.effects, 0.2, 0.1),
        (slice(columns.network, columns.network + 1), 0.2, 0.1),
    ):
        mean_KP[:, part], variance_KP[:, part] = mean, variance
    for part, variance in ((slice(1), 0.3), (counts, 0.1), (columns.dense, 0.02), (columns.teacher, 0.1)):
        variance_KP[:, part] = variance * size_K[:, None]
    for teacher_task in range(columns.teacher_tasks):
        variance_KP[:, _profiles(columns, teacher_task)] = 0.1 * size_K[:, None]
    return mean_KP, variance_KP
