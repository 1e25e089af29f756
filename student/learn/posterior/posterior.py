"""The posterior of each arm and task: what a linear model of all columns and ids knows, and how sure it is.

It is learnt row by row beside the network, whose value is one of its columns, and gives the served score: its mean over
the posterior. Shapes: those of `student.learn.posterior.posterior_kernel`; R numbers of an id.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH
from student.learn.network.heads import Unit
from student.learn.posterior.id_table import IdTable, empty_table, find, take
from student.learn.posterior.posterior_kernel import (
    PSEUDO_LOGITS,
    Known,
    Places,
    Rows,
    Rules,
    Shared,
    begin,
    look_up,
    mean_labels,
    mean_logits,
    score_rows,
    see,
    unit_of,
)
from student.learn.posterior.priors import BLEND, EXPECTED, RESIDUAL, Prior, prior_of
from student.learn.setup import LearnerSetup
from student.versions import served_posterior as served
from student.versions.served_posterior import ID_KEY, ID_KNOWN, USER_KEY, USER_KNOWN, Columns, columns_of, ids_of

ADMITTED = 10
"""Sightings from which on a category has an embedding of its own. Before, its random one would be noise alone."""


class Posterior:
    """The posteriors of M models, which learn the same rows and differ in their networks and in what they see.

    `sees_teacher`: of each model, whether it sees the mean logits of the teacher.
    """

    def __init__(self, setup: LearnerSetup, sees_teacher: Sequence[bool]) -> None:
        self.columns = columns_of(setup.spec, len(setup.tasks), [task.name for task in setup.teacher_tasks])
        prior, models, size = prior_of(setup, self.columns), len(sees_teacher), setup.student.remembered_ids
        self._rules = _rules(setup, self.columns, prior, sees_teacher)
        self._shared = _shared(setup, prior, models)
        logits = len(setup.teacher_tasks)
        self._user_table, self._users = empty_table(size), _known(size, logits, models, prior.user_KJ)
        self._id_table, self._ids = empty_table(size), _known(size, logits, models, prior.id_K1)
        self._compile(len(setup.spec.categorical))

    def predict(self, places: Places, rows: Rows) -> NDArray[np.float32]:
        """The values [M, B, K] of rows that are not learnt: logits (binary) and values (regression)."""
        return self._scored(rows, places, learns=False)

    def learn(self, places: Places, rows: Rows) -> NDArray[np.float32]:
        """Learn B rows one by one, whose places were taken last; the values [M, B, K] that each had before that."""
        return self._scored(rows, places, learns=True)

    def found(self, category_BC: NDArray[np.uint64]) -> Places:
        """Where the ids of B rows are remembered."""
        places = _places(ids_of(self.columns, category_BC))
        places.slot_BE[:, 0] = find(self._user_table, places.id_BE[:, 0])
        slot_b = find(self._id_table, places.id_BE[:, 1:].ravel())
        places.slot_BE[:, 1:] = slot_b.reshape(places.slot_BE[:, 1:].shape)
        look_up(places, self._users, self._ids)
        return places

    def take(self, category_BC: NDArray[np.uint64], *, taught: bool = False) -> Places:
        """Where the ids of B rows are remembered from now on; they are seen once more. `taught`: in a bootstrap."""
        places = _places(ids_of(self.columns, category_BC))
        places.slot_BE[:, 0], places.fresh_BE[:, 0] = take(self._user_table, places.id_BE[:, 0])
        for part, own_b in zip(places[1:3], take(self._id_table, places.id_BE[:, 1:].ravel()), strict=True):
            part[:, 1:] = own_b.reshape(part[:, 1:].shape)
        see(places, self._users, self._ids, taught)
        return places

    def start_taught(self, model: int, category_BC: NDArray[np.uint64], units: Sequence[Unit]) -> None:
        """End the bootstrap of a model's network on these rows: its values are the first scores, its ids are known.

        `units`: of each task, those of the network's values before the first label.
        """
        begin(self.take(category_BC, taught=True), self._users, self._ids)
        self._shared.weight_MKP[model, :, self.columns.network] = 1.0
        for label_3, unit in zip(self._shared.label_MK3[model], units, strict=True):
            label_3[:] = EXPECTED * _mean_powers(unit)

    def admitted(self, category_BC: NDArray[np.uint64], places: Places, *, taught: bool) -> NDArray[np.uint64]:
        """The categories without those that were seen less than `ADMITTED` times, which have the hash of a missing one.

        `places`: of these rows. `taught`: whether the rows of a bootstrap count.
        """
        seen_BE = places.seen_BE + places.taught_BE if taught else places.seen_BE
        admitted_BC = category_BC.copy()
        for e, c in enumerate(self.columns.id_columns):
            if c is not None:
                admitted_BC[seen_BE[:, e] < ADMITTED, c] = MISSING_HASH
        return admitted_BC

    def _compile(self, categories: int) -> None:
        """Compile now what the first example would wait for: some seconds at the first start on a machine."""
        models, tasks, logits = len(self._rules.sees_teacher_M), len(self._rules.own_K), len(self._rules.binary_T)
        category_2C = np.zeros((2, categories), np.uint64)  # two: slices of one row would be of another type
        id_2E = ids_of(self.columns, category_2C)
        for id_2 in (id_2E[:, 0], id_2E[:, 1:].ravel()):
            take(empty_table(2), id_2)
        places = self.found(category_2C)
        see(places, self._users, self._ids, False)
        dense_M2D = np.zeros((models, 2, self.columns.dense_width), np.float32)
        network_M2K, label_2K = np.zeros((models, 2, tasks), np.float32), np.zeros((2, tasks), np.float32)
        logit_2T, weight_2 = np.zeros((2, logits), np.float32), np.ones(2, np.float32)
        self.predict(places, Rows(dense_M2D, network_M2K, label_2K, logit_2T, weight_2))

    def _scored(self, rows: Rows, places: Places, *, learns: bool) -> NDArray[np.float32]:
        state = self._shared, self._users, self._ids
        return score_rows(rows, places, self._rules, *state, learns).astype(np.float32)

    def served(self, model: int) -> dict[str, NDArray[Any]]:
        """What a version serves of one model."""
        user_key, user_known = _served_ids(model, self._rules, self._shared, self._user_table, self._users, users=True)
        id_key, id_known = _served_ids(model, self._rules, self._shared, self._id_table, self._ids, users=False)
        ids: dict[str, NDArray[Any]] = {USER_KEY: user_key, USER_KNOWN: user_known, ID_KEY: id_key, ID_KNOWN: id_known}
        return _served_shared(model, self._rules, self._shared) | ids

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state; ids from the one seen longest ago."""
        shared: dict[str, NDArray[Any]] = {f"shared.{name}": tensor for name, tensor in self._shared._asdict().items()}
        users, ids = (self._user_table, self._users), (self._id_table, self._ids)
        return shared | _remembered("users", *users) | _remembered("ids", *ids)

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        for name, own in self._shared._asdict().items():
            own[...] = tensors[f"shared.{name}"]
        self._user_table = _restored("users", tensors, self._users)
        self._id_table = _restored("ids", tensors, self._ids)


def _places(id_BE: NDArray[np.uint64]) -> Places:
    """Of ids that are not looked up yet."""
    slot_BE, seen_BE, taught_BE = np.zeros((3, *id_BE.shape), np.int64)
    return Places(id_BE, slot_BE, np.zeros(id_BE.shape, np.bool_), seen_BE, taught_BE)


def _mean_powers(unit: Unit) -> NDArray[np.float64]:
    """1, and the means of a task's labels and of their squares, that have this unit."""
    if unit.kind == "binary":
        share = 1 / (1 + np.exp(-unit.offset))
        return np.array([1.0, share, share])
    return np.array([1.0, unit.offset, unit.offset**2 + unit.scale**2])


def _rules(setup: LearnerSetup, columns: Columns, prior: Prior, sees_teacher: Sequence[bool]) -> Rules:
    return Rules(
        binary_K=np.array([task.kind == "binary" for task in setup.tasks]),
        binary_T=np.array([task.kind == "binary" for task in setup.teacher_tasks], np.bool_),
        sees_teacher_M=np.array(sees_teacher, np.float64),
        reach_E=prior.reach_E,
        own_K=np.array([-1 if column is None else column for column in setup.reference_columns]),
        item_dense_I=np.array(columns.item_dense, np.int64),
        drift_K=prior.drift_K,
        level_drift_K=prior.level_drift_K,
    )


def _shared(setup: LearnerSetup, prior: Prior, models: int) -> Shared:
    tasks, width = prior.mean_KP.shape
    covariance_MKPP = np.zeros((models, tasks, width, width))
    covariance_MKPP[..., np.arange(width), np.arange(width)] = prior.variance_KP
    return Shared(
        weight_MKP=np.tile(prior.mean_KP, (models, 1, 1)),
        covariance_MKPP=covariance_MKPP,
        blend_MKL=np.tile(np.eye(tasks, tasks + 1, 1), (models, 1, 1)),
        blend_covariance_MKLL=np.tile(BLEND * np.eye(tasks + 1), (models, tasks, 1, 1)),
        residual_MK2=np.tile(RESIDUAL, (models, tasks, 1)),
        label_MK3=np.zeros((models, tasks, 3)),
        logit_T3=np.zeros((len(setup.teacher_tasks), 3)),
    )


def _known(size: int, logits: int, models: int, prior_KJ: NDArray[np.float32]) -> Known:
    tasks, slopes = prior_KJ.shape
    known = Known(
        label_NK2=np.zeros((size + 1, tasks, 2)),
        logit_NT2=np.zeros((size + 1, logits, 2)),
        mean_NMKJ=np.zeros((size + 1, models, tasks, slopes), np.float32),
        variance_NMKJ=np.zeros((size + 1, models, tasks, slopes), np.float32),
        sightings_N=np.zeros(size + 1, np.int64),
        taught_N=np.zeros(size + 1, np.int64),
    )
    known.variance_NMKJ[0] = prior_KJ
    return known


def _remembered(name: str, table: IdTable, known: Known) -> dict[str, NDArray[Any]]:
    slots = table.slots_by_age()
    return {f"{name}.key": table.key_N[slots]} | {f"{name}.{part}": own[slots] for part, own in known._asdict().items()}


def _restored(name: str, tensors: Mapping[str, NDArray[Any]], known: Known) -> IdTable:
    """The table of the saved ids, whose slots follow their age; what is known of them goes into `known`."""
    key_N = tensors[f"{name}.key"]
    table = empty_table(len(known.sightings_N) - 1)
    take(table, key_N)
    for part, own in known._asdict().items():
        own[1 : len(key_N) + 1] = tensors[f"{name}.{part}"]
    return table


def _served_shared(m: int, rules: Rules, shared: Shared) -> dict[str, NDArray[Any]]:
    """What a version serves of a model, in float32: all but what is known of ids."""
    tasks, logits = len(rules.binary_K), len(rules.binary_T)
    return {
        served.WEIGHT: shared.weight_MKP[m].astype(np.float32),
        served.COVARIANCE: shared.covariance_MKPP[m].astype(np.float32),
        served.BLEND: shared.blend_MKL[m].astype(np.float32),
        served.UNIT: _units(m, rules, shared)[:, 1:].astype(np.float32),
        served.REACH: rules.reach_E.astype(np.float32),
        served.OWN: (rules.own_K[:, None] == np.arange(logits)).astype(np.float32).reshape(tasks, logits),
    }


def _served_ids(
    m: int, rules: Rules, shared: Shared, table: IdTable, known: Known, *, users: bool
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """The keys of a table in increasing order, and what is known of them, [N] and [1 + N, R]; the prior comes first."""
    slots = table.slots_by_age()
    slots = slots[np.argsort(table.key_N[slots])]
    first_slots = np.concatenate([[0], slots])
    label_NK2, unit_K3 = known.label_NK2[first_slots], _units(m, rules, shared)
    means = [mean_labels(label_NK2[:, k], unit_K3[k], binary) for k, binary in enumerate(rules.binary_K)]
    pseudo = PSEUDO_LOGITS[0 if users else 1]
    logits = [
        mean_logits(known.logit_NT2[first_slots, t], shared.logit_T3[t], pseudo, binary) * rules.sees_teacher_M[m]
        for t, binary in enumerate(rules.binary_T)
    ]
    mean_NKJ, variance_NKJ = known.mean_NMKJ[first_slots, m], known.variance_NMKJ[first_slots, m]
    counts = np.log1p(label_NK2[:, :, 0]) / 3
    seen_N = known.sightings_N[first_slots] + known.taught_N[first_slots]
    parts = [seen_N[:, None] >= ADMITTED, np.stack(means, axis=1), counts, mean_NKJ[:, :, 0], variance_NKJ[:, :, 0]]
    parts += [np.stack(logits, axis=1)] if logits else []
    if users:
        parts += [own_NKJ[:, :, 1:].reshape(len(first_slots), -1) for own_NKJ in (mean_NKJ, variance_NKJ)]
    return table.key_N[slots], np.concatenate(parts, axis=1).astype(np.float32)


def _units(m: int, rules: Rules, shared: Shared) -> NDArray[np.float64]:
    return np.array(
        [unit_of(label_3, binary) for label_3, binary in zip(shared.label_MK3[m], rules.binary_K, strict=True)]
    )
