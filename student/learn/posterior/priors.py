"""What a posterior believes before the first label: the same for every project. A study may multiply its parts.

Variances are those of a binary task's log odds. A regression is in deviations of its label, whose noise is at most 1
where that of log odds is pi^2 / 3, so its effects are smaller. Shapes: K tasks, P columns, J slopes of a user,
E ids of a row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from student.learn.prior_factors import PriorFactors
from student.learn.setup import LearnerSetup
from student.versions.served_posterior import Columns

USER = 0.3
"""Of a user's intercept. It drifts, since people change: at each sighting the variance grows by `DRIFT`."""
DRIFT = 0.002
ID = 0.3
"""Of an item's effect, and of a category's in its own scale."""
LEVEL_REACH = 0.2
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

PSEUDO_LABELS = 5.0
"""Labels of each id that the mean over all rows counts as, in its mean label."""
PSEUDO_LOGITS = 1 / 3, 1.0
"""Logits of a user, and of an item, that the mean logit over all rows counts as, in its mean logit."""

EXPECTED = 20.0
"""Labels that those which a bootstrapped network expects count as."""

_REGRESSION = 0.25
"""Times a variance, for a regression."""


class Prior(NamedTuple):
    """All that the posteriors of a learner begin with.

    `user_KJ`: variances of a user's effect and slopes. `id_K1`: of another id's effect. `reach_E`: how much of it a row
    takes. `taught_network`: the weight of a bootstrapped network. `blend`: the variance of a weight of the blend.
    `expected`: the number of labels that those count as which a bootstrapped network expects. `residual_2`: number and
    sum of squares of a regression's errors. `pseudo_labels`, `pseudo_logits_2`: how many labels of an id, and logits of
    a user and of an item, the mean over all rows counts as.
    """

    mean_KP: NDArray[np.float64]
    variance_KP: NDArray[np.float64]
    user_KJ: NDArray[np.float32]
    id_K1: NDArray[np.float32]
    reach_E: NDArray[np.float64]
    drift_K: NDArray[np.float64]
    level_drift_K: NDArray[np.float64]
    taught_network: float
    blend: float
    expected: float
    residual_2: NDArray[np.float64]
    pseudo_labels: float
    pseudo_logits_2: NDArray[np.float64]


def prior_of(setup: LearnerSetup, columns: Columns) -> Prior:
    """The prior of every model of a learner."""
    factors = setup.priors
    size_K = np.array([1.0 if task.kind == "binary" else _REGRESSION for task in setup.tasks])
    mean_KP, variance_KP = _weights(setup, columns, size_K)
    ids = factors.item or 1.0  # items and categories are in one table, so they share a variance
    return Prior(
        mean_KP,
        variance_KP,
        user_KJ=(size_K[:, None] * _user(setup, columns)).astype(np.float32),
        id_K1=(size_K[:, None] * ID * ids).astype(np.float32),
        reach_E=_reach(factors, columns, ids),
        level_drift_K=LEVEL_DRIFT * factors.blend * size_K,
        drift_K=DRIFT * factors.drift * (factors.user > 0) * size_K,
        taught_network=float(factors.network > 0),
        blend=BLEND * factors.blend,
        expected=EXPECTED * factors.expected,
        residual_2=factors.residual * np.array(RESIDUAL),
        pseudo_labels=PSEUDO_LABELS * factors.pseudo_labels,
        pseudo_logits_2=factors.pseudo_logits * np.array(PSEUDO_LOGITS),
    )


def _user(setup: LearnerSetup, columns: Columns) -> NDArray[np.float64]:
    """Variances of a user's intercept and slopes [K, J], as if each task were binary."""
    factors, profiled = setup.priors, _profiled(columns)
    user_KJ = np.full((len(setup.tasks), columns.slopes), TASTE * factors.taste)
    user_KJ[:, 0], user_KJ[:, -2] = USER * factors.user, TRUST * factors.trust
    for k, teacher_task in enumerate(setup.reference_columns):
        # A user has a slope on the item's profile already, as on its other dense columns.
        is_seen = teacher_task is not None and _running(columns, teacher_task)[1] not in profiled
        user_KJ[k, -1] = TASTE * factors.mean_logits * is_seen
    return user_KJ


def _reach(factors: PriorFactors, columns: Columns, ids: float) -> NDArray[np.float64]:
    """Of user, item and categories."""
    category = LEVEL_REACH * (factors.category / ids) ** 0.5
    return np.array([1.0, float(factors.item > 0), *[category] * (columns.ids - 2)])


def _weights(
    setup: LearnerSetup, columns: Columns, size_K: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and variances [K, P]. Between values in the same unit a slope has no unit: it is alike for every kind."""
    factors, one_K = setup.priors, np.ones_like(size_K)
    mean_KP, variance_KP = np.zeros((2, len(size_K), columns.width))
    all_means, all_counts = (slice(columns.aggregates.start + i, columns.aggregates.stop, 2) for i in range(2))
    for places, mean, variance, unit_K, factor in (
        (slice(1), 0.0, 0.075, size_K, factors.intercept),  # eta is a deviation from all labels so far
        (all_means, 0.4, 0.1, one_K, factors.means),
        (all_counts, 0.0, 0.1, size_K, factors.counts),
        (columns.dense, 0.0, 0.02, size_K, factors.dense),
        (columns.effects, 0.2, 0.1, one_K, factors.other_tasks),
        (slice(columns.network, columns.network + 1), 0.2, 0.1, one_K, factors.network),
        (columns.teacher, 0.0, 0.1, size_K, factors.mean_logits),
        (_profiles(columns), 0.0, 0.1, size_K, factors.profiles),
    ):
        mean_KP[:, places] = mean if factor else 0.0
        variance_KP[:, places] = variance * factor * unit_K[:, None]
    for k, teacher_task in enumerate(setup.reference_columns):
        if teacher_task is not None:
            for own, factor in (
                (_running(columns, teacher_task), factors.mean_logits),
                (_profiles(columns, teacher_task), factors.profiles),
            ):
                mean_KP[k, own] = 0.5 * size_K[k] ** 0.5 if factor else 0.0
                variance_KP[k, own] = 0.25 * size_K[k] * factor
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
