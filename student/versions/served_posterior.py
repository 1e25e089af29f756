"""The tensors of a version's posterior in model.safetensors: names, shapes, and the order of what is known of an id.

Shapes: K tasks, P columns, E ids of a row, T teacher tasks, J slopes of a user, N ids remembered, R numbers of an id.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from student.versions.columns import Columns

WEIGHT = "posterior.weight"
"""[K, P]."""
COVARIANCE = "posterior.covariance"
"""[K, P, P], of the weights."""
BLEND = "posterior.blend"
"""[K, 1 + K]: of 1 and the linear values of all tasks."""
UNIT = "posterior.unit"
"""[K, 2]: offset and scale of a task's values; the network's value is put into this unit, a regression's out of it."""
REACH = "posterior.reach"
"""[E]: how much of an id's effect a row takes."""
OWN = "posterior.own"
"""[K, T]: 1 for the teacher task that stands for the teacher in a task, else 0."""
USER_KEY, ID_KEY = "users.key", "ids.key"
"""[N]: hashes, in increasing order; the users have a table of their own, all other ids share one."""
USER_KNOWN, ID_KNOWN = "users.known", "ids.known"
"""[1 + N, R]: the prior, then what is known of the ids in the order of their keys; see `KnownOrder`."""


class KnownOrder:
    """Where an id's R numbers have what.

    Whether the network embeds it (1 or 0), for each of K tasks mean, count, effect and variance, for each of T teacher
    tasks the mean logit, then a user's slopes and their variances, task by task.
    """

    admitted = 0

    def __init__(self, columns: Columns) -> None:
        tasks, slopes = columns.tasks, columns.tasks * (columns.slopes - 1)
        self.mean, self.count, self.effect, self.variance = (
            slice(1 + i * tasks, 1 + (i + 1) * tasks) for i in range(4)
        )
        self.logit = slice(self.variance.stop, self.variance.stop + columns.teacher_tasks)
        self.slope = slice(self.logit.stop, self.logit.stop + slopes)
        self.slope_variance = slice(self.slope.stop, self.slope.stop + slopes)

    @property
    def id_width(self) -> int:
        """R of an id that is no user."""
        return self.logit.stop

    @property
    def user_width(self) -> int:
        """R of a user."""
        return self.slope_variance.stop


def posterior_shapes(columns: Columns, users: int, ids: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a posterior that remembers so many users and other ids, with its shape."""
    order, tasks, width = KnownOrder(columns), columns.tasks, columns.width
    return {
        WEIGHT: (tasks, width),
        COVARIANCE: (tasks, width, width),
        BLEND: (tasks, 1 + tasks),
        UNIT: (tasks, 2),
        REACH: (columns.ids,),
        OWN: (tasks, columns.teacher_tasks),
        USER_KEY: (users,),
        USER_KNOWN: (1 + users, order.user_width),
        ID_KEY: (ids,),
        ID_KNOWN: (1 + ids, order.id_width),
    }


def remembered(tensors: Mapping[str, NDArray[Any]], key: str) -> int:
    """How many ids the tensor of keys has; 0 where it is missing."""
    return tensors[key].size if key in tensors else 0


def places_of(key_N: NDArray[np.uint64], id_X: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Where what is known of ids stands in its tensor [X]: 0, the prior, for one that is not remembered."""
    if not len(key_N):
        return np.zeros(id_X.shape, np.intp)
    place_X = key_N.searchsorted(id_X)
    found_X: NDArray[np.intp] = (place_X + 1) * (key_N.take(place_X, mode="clip") == id_X)
    return found_X
