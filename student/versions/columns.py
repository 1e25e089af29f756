"""The columns of the posterior: what it sees of a row, in one order for learner and scorer.

Shapes: P columns, E ids of a row, D dense columns, C categorical columns, K tasks, T teacher tasks, J slopes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
