"""What of a posterior a version serves: one model's weights, and what is known of each id, in float32.

Shapes: those of `student.learn.posterior.posterior_kernel`; R numbers of an id.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from student.learn.posterior.id_table import IdTable
from student.learn.posterior.posterior_kernel import (
    PSEUDO_LOGITS,
    Known,
    Rules,
    Shared,
    mean_labels,
    mean_logits,
    unit_of,
)
from student.versions import served_posterior as served

ADMITTED = 10
"""Sightings from which on a category has an embedding of its own. Before, its random one would be noise alone."""


def served_shared(m: int, rules: Rules, shared: Shared) -> dict[str, NDArray[Any]]:
    """All but what is known of ids."""
    tasks, logits = len(rules.binary_K), len(rules.binary_T)
    return {
        served.WEIGHT: shared.weight_MKP[m].astype(np.float32),
        served.COVARIANCE: shared.covariance_MKPP[m].astype(np.float32),
        served.BLEND: shared.blend_MKL[m].astype(np.float32),
        served.UNIT: _units(m, rules, shared)[:, 1:].astype(np.float32),
        served.REACH: rules.reach_E.astype(np.float32),
        served.OWN: (rules.own_K[:, None] == np.arange(logits)).astype(np.float32).reshape(tasks, logits),
    }


def served_ids(
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
