"""The posterior that a version serves: its tensors in model.safetensors, and its mean for each row, in numpy.

The learner's arithmetic (student/learn/posterior/posterior_kernel.py) without the learning. Shapes: B rows, K tasks,
P columns, E ids of a row, D dense columns, I of them of the item, C categorical columns, T teacher tasks, J slopes of a
user, N ids remembered, R numbers of an id; U users: 1 where all rows have the same one, else B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH, FeatureSpec

LARGEST_NETWORK = 6.0
"""Units of the task, from its mean, at which the network's value is cut off."""

_OF_AN_ID = 2
"""Aggregate columns of each id: its shrunken mean label, and how many labels it has had."""

_PAIR = 2
"""Columns of a user and an item: the effects of each task, and the mean logits of each teacher task."""

_OWN_SLOPES = 3
"""Of a user beside those on the item's dense columns: the intercept, the network's value, the item's mean logit."""


@dataclass(frozen=True)
class Columns:
    """The P columns of a row, in their order.

    1, mean and count of each id, the dense columns, the effects of user and item on each task, the network's value, the
    mean logits of user and item for each teacher task.

    `id_columns`: of each of the E ids, its place among the C categorical columns: the user's and the item's, None where
    the spec has no such column, then all others, whose every value is an id too. `item_dense`: the places, among the D
    dense columns, of those that describe the item. `profiles`: for each of the T teacher tasks the places, among the D,
    of those that are its mean logits.
    """

    dense_width: int
    tasks: int
    teacher_tasks: int
    id_columns: tuple[int | None, ...]
    item_dense: tuple[int, ...]
    profiles: tuple[tuple[int, ...], ...]

    @cached_property
    def ids(self) -> int:
        """E."""
        return len(self.id_columns)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """The places of the ids among the C categorical columns, of those that have one."""
        return tuple(c for c in self.id_columns if c is not None)

    @cached_property
    def id_of_column(self) -> tuple[int, ...]:
        """Of each of the C categorical columns, its place among the E ids."""
        placed = {c: e for e, c in enumerate(self.id_columns) if c is not None}
        return tuple(placed[c] for c in range(len(placed)))

    @property
    def width(self) -> int:
        """P."""
        return self.network + 1 + _PAIR * self.teacher_tasks

    @property
    def slopes(self) -> int:
        """J: the user's intercept, its taste in the item's dense columns, in the network and in the teacher."""
        return _OWN_SLOPES + len(self.item_dense)

    @cached_property
    def aggregates(self) -> slice:
        """Mean and count of each id."""
        return slice(1, 1 + _OF_AN_ID * self.ids)

    @cached_property
    def dense(self) -> slice:
        """The normalised dense columns."""
        return _after(self.aggregates, self.dense_width)

    @cached_property
    def effects(self) -> slice:
        """The effects of the row's user and item on each task; those on the task itself are left at 0."""
        return _after(self.dense, _PAIR * self.tasks)

    @cached_property
    def network(self) -> int:
        """The network's value of the task."""
        end: int = self.effects.stop
        return end

    @cached_property
    def teacher(self) -> slice:
        """The mean logits of the row's user and item for each teacher task."""
        return slice(self.network + 1, self.network + 1 + _PAIR * self.teacher_tasks)


def columns_of(spec: FeatureSpec, tasks: int, teacher_tasks: Sequence[str]) -> Columns:
    """The columns of a project with so many tasks, and with teacher tasks of these names."""
    sources = [feature.source for feature in spec.dense for _ in range(feature.width)]
    profiles = [feature.profile_of for feature in spec.dense for _ in range(feature.width)]
    place = {feature.source: c for c, feature in enumerate(spec.categorical)}
    levels = [c for c, feature in enumerate(spec.categorical) if feature.source not in ("user_id", "item_id")]
    return Columns(
        dense_width=len(sources),
        tasks=tasks,
        teacher_tasks=len(teacher_tasks),
        id_columns=(place.get("user_id"), place.get("item_id"), *levels),
        item_dense=tuple(d for d, source in enumerate(sources) if source == "item"),
        profiles=tuple(tuple(d for d, of in enumerate(profiles) if of == name) for name in teacher_tasks),
    )


def seen_of(spec: FeatureSpec, *, sees_teacher: bool) -> NDArray[np.float32]:
    """1 for each of the D dense columns that an arm sees, 0 for those of the teacher in an arm that is blind to it."""
    profile_D = [bool(feature.profile_of) for feature in spec.dense for _ in range(feature.width)]
    return np.array([sees_teacher or not is_profile for is_profile in profile_D], np.float32)


def units_of(columns: Columns, std_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """What normalised dense columns are multiplied by for the posterior [D].

    The mean logits of one teacher task it sees in deviations of all of them together, of a user's and an item's: one
    that hardly varies says little, and a weight has the same meaning for each. Other columns stay as they are.
    """
    unit_D = np.ones(columns.dense_width, np.float32)
    for places in map(list, columns.profiles):
        unit_D[places] = std_D[places] / np.sqrt((std_D[places] ** 2).sum())
    return unit_D


def ids_of(columns: Columns, category_BC: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes of the E ids of B rows [B, E]; that of a missing value where there is no such column."""
    if len(columns.present) == columns.ids:
        return category_BC.take(columns.present, axis=1)
    id_BE = np.full((len(category_BC), columns.ids), MISSING_HASH, np.uint64)
    for e, c in enumerate(columns.id_columns):
        if c is not None:
            id_BE[:, e] = category_BC[:, c]
    return id_BE


def _after(before: slice, width: int) -> slice:
    return slice(before.stop, before.stop + width)


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


Floats = NDArray[np.float32]

_LOGIT_VARIANCE = np.float32(np.pi / 8)
"""MacKay 1992: a logistic function's mean over a Gaussian is that of its mean over `sqrt(1 + pi / 8 * variance)`."""


class Known(NamedTuple):
    """What is known of the ids of B rows: of their users [U, R], and of their other ids [B, E - 1, R]."""

    user_UR: Floats
    id_BeR: Floats


class NumpyPosterior:
    """`binary_K`: the kinds of all tasks. `tensors` are kept, not copied; they must have no fault."""

    def __init__(self, columns: Columns, binary_K: NDArray[np.bool_], tensors: Mapping[str, NDArray[Any]]) -> None:
        self._columns, self._order, self._binary_K1 = columns, KnownOrder(columns), binary_K[:, None]
        self._weight_KP1 = tensors[WEIGHT][:, :, None]
        self._covariance_KPP = tensors[COVARIANCE]
        self._blend_KK, self._blend_K1 = tensors[BLEND][:, 1:], tensors[BLEND][:, :1]
        self._own_TK = np.ascontiguousarray(tensors[OWN].T)
        self._offset_K1, self._scale_K1 = tensors[UNIT].T[:, :, None]
        self._user_known, self._id_known = tensors[USER_KNOWN], tensors[ID_KNOWN]
        self._reach_XK = self._reach(tensors[REACH][1:])
        self._id_of_column = np.array(columns.id_of_column, np.intp)
        self._item_dense = np.array(columns.item_dense, np.intp)

    def known_at(self, place_BE: NDArray[np.integer[Any]]) -> Known:
        """What is known of the ids at these places of the tensors."""
        user_B = place_BE[:, 0]
        same = len(user_B) and (user_B == user_B[0]).all()
        return Known(self._user_known[user_B[:1] if same else user_B], self._id_known.take(place_BE[:, 1:], axis=0))

    def admitted(self, known: Known) -> NDArray[np.bool_]:
        """Which of the C categorical values of B rows the network embeds [B, C]."""
        user_UR, id_BeR = known
        admitted_BE = np.empty((len(id_BeR), self._columns.ids), bool)
        admitted_BE[:, 0] = user_UR[:, self._order.admitted]
        admitted_BE[:, 1:] = id_BeR[:, :, self._order.admitted]
        return admitted_BE.take(self._id_of_column, axis=1)

    def score(self, known: Known, dense_BD: Floats, network_KB: Floats) -> Floats:
        """The values [K, B]: means over the posterior, as logits of binary tasks. `dense_BD` is in its units."""
        scaled_KB = (network_KB - self._offset_K1) / self._scale_K1
        network_KB = np.clip(scaled_KB, -LARGEST_NETWORK, LARGEST_NETWORK, out=scaled_KB)
        x_KBP = self._columns_of(known, dense_BD, network_KB)
        eta_KB = (x_KBP @ self._weight_KP1)[:, :, 0]
        v_KB = np.einsum("kbp,kbp->kb", x_KBP @ self._covariance_KPP, x_KBP)
        self._add_effects(eta_KB, v_KB, known)
        self._add_slopes(eta_KB, v_KB, known.user_UR, self._slopes_of(known, dense_BD, network_KB))
        value_KB = self._offset_K1 + self._scale_K1 * (self._blend_K1 + self._blend_KK @ eta_KB)
        mean_KB: Floats = np.where(self._binary_K1, value_KB / np.sqrt(1 + _LOGIT_VARIANCE * v_KB), value_KB)
        return mean_KB

    def _columns_of(self, known: Known, dense_BD: Floats, network_KB: Floats) -> Floats:
        columns, order, (user_UR, id_BeR) = self._columns, self._order, known
        x_KBP = np.empty((*network_KB.shape, columns.width), np.float32)
        x_KBP[:, :, 0] = 1
        for part, first in ((order.mean, 1), (order.count, 2)):
            x_KBP[:, :, first] = user_UR[:, part].T
            x_KBP[:, :, first + 2 : columns.aggregates.stop : 2] = id_BeR[:, :, part].transpose(2, 0, 1)
        x_KBP[:, :, columns.dense] = dense_BD
        for part, pairs in ((order.effect, columns.effects), (order.logit, columns.teacher)):
            x_KBP[:, :, pairs.start : pairs.stop : 2] = user_UR[:, part]
            x_KBP[:, :, pairs.start + 1 : pairs.stop : 2] = id_BeR[:, 0, part]
        for k in range(columns.tasks):
            x_KBP[k, :, columns.effects.start + 2 * k : columns.effects.start + 2 * k + 2] = 0
        x_KBP[:, :, columns.network] = network_KB
        return x_KBP

    def _slopes_of(self, known: Known, dense_BD: Floats, network_KB: Floats) -> Floats:
        """What a user's slopes are on: z without its first, the intercept."""
        columns = self._columns
        z_KBJ = np.empty((*network_KB.shape, columns.slopes - 1), np.float32)
        z_KBJ[:, :, :-2] = dense_BD.take(self._item_dense, axis=1)
        z_KBJ[:, :, -2] = network_KB
        z_KBJ[:, :, -1] = (known.id_BeR[:, 0, self._order.logit] @ self._own_TK).T
        return z_KBJ

    def _reach(self, reach_e: Floats) -> Floats:
        """What takes all that is known of a row's ids [(E - 1) R] to the effects and variances of K tasks [2 K]."""
        tasks, order = self._columns.tasks, self._order
        reach_eRK = np.zeros((len(reach_e), order.id_width, 2 * tasks), np.float32)
        for k in range(tasks):
            reach_eRK[:, order.effect.start + k, k] = reach_e
            reach_eRK[:, order.variance.start + k, tasks + k] = reach_e**2
        return reach_eRK.reshape(-1, 2 * tasks)

    def _add_effects(self, eta_KB: Floats, v_KB: Floats, known: Known) -> None:
        (user_UR, id_BeR), tasks = known, self._columns.tasks
        moved_XB = (id_BeR.reshape(len(id_BeR), -1) @ self._reach_XK).T
        eta_KB += user_UR[:, self._order.effect].T
        eta_KB += moved_XB[:tasks]
        v_KB += user_UR[:, self._order.variance].T
        v_KB += moved_XB[tasks:]

    def _add_slopes(self, eta_KB: Floats, v_KB: Floats, user_UR: Floats, z_KBJ: Floats) -> None:
        shape = len(user_UR), self._columns.tasks, -1
        eta_KB += _products(user_UR[:, self._order.slope].reshape(shape), z_KBJ)
        v_KB += _products(user_UR[:, self._order.slope_variance].reshape(shape), np.square(z_KBJ, out=z_KBJ))


def _products(of_UKJ: Floats, z_KBJ: Floats) -> Floats:
    """The scalar products of each row [K, B]."""
    if len(of_UKJ) == 1:
        shared_KB: Floats = (z_KBJ @ of_UKJ[0, :, :, None])[:, :, 0]
        return shared_KB
    product_KB: Floats = np.einsum("bkj,kbj->kb", of_UKJ, z_KBJ)
    return product_KB
