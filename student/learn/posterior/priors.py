"""What a posterior believes before the first label: the same for every project.

Variances are those of a binary task's log odds. A regression is in deviations of its label, whose noise is at most 1
where that of log odds is pi^2 / 3, so its effects are smaller. Shapes: K tasks, P columns, J slopes of a user,
E ids of a row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from student.learn.setup import LearnerSetup
from student.versions.served_posterior import Columns

USER = 0.3
"""Of a user's intercept. It drifts, since people change: at each sighting the variance grows by `DRIFT`."""
DRIFT = 0.002
ID = 0.3
"""Of an item's effect, and of a category's in its own scale."""
CATEGORY_REACH = 0.2
"""Times a category's effect: a twenty-fifth of an item's variance, as many rows share each."""
TASTE = 0.02
"""Of a user's slope on a dense column of the item, and on the item's mean logit."""
TRUST = 0.1
"""Of a user's slope on the network's value."""

BLEND = 0.1
"""Of the weight of each task's value in another's; a task's own is 1 at first, the others' are 0."""
LEVEL_DRIFT = 3e-6
"""What the variance of the blend's intercept gains at each label, so that it follows the last 1,000 to 2,000 labels.
The level of what it blends changes as more is known of each id."""

RESIDUAL = 4.0, 3.0
"""Of a regression: so many errors, and the sum of their squares, in deviations of the label."""

EXPECTED = 20.0
"""Labels that those which a bootstrapped network expects count as."""

_REGRESSION = 0.25
"""Times a variance, for a regression."""


class Prior(NamedTuple):
    """What the posteriors of a learner begin with, beside the constants above.

    `user_KJ`: variances of a user's effect and slopes. `id_K1`: of another id's effect. `reach_E`: how much of it a row
    takes.
    """

    mean_KP: NDArray[np.float64]
    variance_KP: NDArray[np.float64]
    user_KJ: NDArray[np.float32]
    id_K1: NDArray[np.float32]
    reach_E: NDArray[np.float64]
    drift_K: NDArray[np.float64]
    level_drift_K: NDArray[np.float64]


def prior_of(setup: LearnerSetup, columns: Columns) -> Prior:
    """The prior of every model of a learner."""
    size_K = np.array([1.0 if task.kind == "binary" else _REGRESSION for task in setup.tasks])
    mean_KP, variance_KP = _weights(setup, columns, size_K)
    return Prior(
        mean_KP,
        variance_KP,
        user_KJ=(size_K[:, None] * _user(setup, columns)).astype(np.float32),
        id_K1=(size_K[:, None] * ID).astype(np.float32),
        reach_E=np.array([1.0, 1.0, *[CATEGORY_REACH] * (columns.ids - 2)]),
        drift_K=DRIFT * size_K,
        level_drift_K=LEVEL_DRIFT * size_K,
    )


def _user(setup: LearnerSetup, columns: Columns) -> NDArray[np.float64]:
    """Variances of a user's intercept and slopes [K, J], as if each task were binary."""
    profiled = _profiled(columns)
    user_KJ = np.full((len(setup.tasks), columns.slopes), TASTE)
    user_KJ[:, 0], user_KJ[:, -2] = USER, TRUST
    for k, teacher_task in enumerate(setup.reference_columns):
        # A user has a slope on the item's profile already, as on its other dense columns.
        is_seen = teacher_task is not None and _running(columns, teacher_task)[1] not in profiled
        user_KJ[k, -1] = TASTE * is_seen
    return user_KJ


def _weights(
    setup: LearnerSetup, columns: Columns, size_K: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances [K, P]. Between values in the same unit a slope has no unit: it is alike for every kind."""
    one_K = np.ones_like(size_K)
    mean_KP, variance_KP = np.zeros((2, len(size_K), columns.width))
    all_means, all_counts = (slice(columns.aggregates.start + i, columns.aggregates.stop, 2) for i in range(2))
    for places, mean, variance, unit_K in (
        (slice(1), 0.0, 0.075, size_K),  # eta is a deviation from all labels so far
        (all_means, 0.4, 0.1, one_K),
        (all_counts, 0.0, 0.1, size_K),
        (columns.dense, 0.0, 0.02, size_K),
        (columns.effects, 0.2, 0.1, one_K),
        (slice(columns.network, columns.network + 1), 0.2, 0.1, one_K),
        (columns.teacher, 0.0, 0.1, size_K),
        (_profiles(columns), 0.0, 0.1, size_K),
    ):
        mean_KP[:, places] = mean
        variance_KP[:, places] = variance * unit_K[:, None]
    for k, teacher_task in enumerate(setup.reference_columns):
        if teacher_task is not None:
            own = _running(columns, teacher_task) + _profiles(columns, teacher_task)
            mean_KP[k, own] = 0.5 * size_K[k] ** 0.5
            variance_KP[k, own] = 0.25 * size_K[k]
    profiled = _profiled(columns)
    mean_KP[:, profiled] = variance_KP[:, profiled] = 0.0
    return mean_KP, variance_KP


def _running(columns: Columns, teacher_task: int) -> list[int]:
    """The running mean logits of a teacher task, of user and item."""
    first = columns.teacher.start + 2 * teacher_task
    return [first, first + 1]


def _profiled(columns: Columns) -> list[int]:
    """The running mean logits of an entity that has a profile of that task, which is the mean that they estimate."""
    items = set(columns.item_dense)
    return [
        column
        for teacher_task, profiles in enumerate(columns.profiles)
        for column, is_item in zip(_running(columns, teacher_task), (False, True), strict=True)
        if any((place in items) == is_item for place in profiles)
    ]


def _profiles(columns: Columns, teacher_task: int | None = None) -> list[int]:
    """The profiles that are mean logits of a teacher task; of all if None."""
    tasks = range(columns.teacher_tasks) if teacher_task is None else [teacher_task]
    return [columns.dense.start + d for task in tasks for d in columns.profiles[task]]
