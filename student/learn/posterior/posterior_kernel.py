"""The posterior's arithmetic, row by row: assumed-density filtering of a linear model with effects of each id.

For one model and task, with eta and v the mean and the variance of the linear value of a row (columns x, slopes z):

    eta = w . x + user . z + sum of the other ids' effects      v = x' S x + sum of the ids' variances
    binary      p = sigmoid(log odds of all labels + eta), h = max(p (1 - p), 0.02), error = (y - p) / h
    regression  h = 1 / running residual variance, error = y - eta, with y in deviations from the mean of all labels

and every part of mean m and variance s takes the Kalman step m += s x h error / (1 + h v), s -= h (s x)^2 / (1 + h v).
A row whose labels stand for w impressions has w h in place of h, and counts as w labels in every mean.
A last model of the same kind blends the etas of all tasks; its intercept drifts, and follows their level. Loops stand
where numpy would take a slice: numba compiles them in a fraction of the time. Shapes: B rows, M models, K tasks,
L = K + 1 columns of the blend, P columns, J slopes of a user, E ids of a row, D dense columns, I of them of the item,
T teacher tasks, N slots of a table of ids.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.compute import compiled
from student.versions.served_posterior import LARGEST_NETWORK

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_LEAST_CURVATURE = 0.02

_LARGEST_ERROR = 5.0
"""Deviations of the label at which a regression's error is cut off."""

_LEAST_SHARE = 1e-4
"""Of positives, in an id's mean label."""

_LEAST_NOISE = 0.01
"""Of a regression, as a share of its label's variance."""

_PSEUDO_LABELS = 5.0
"""Labels of each id that the mean over all rows counts as, in its mean label."""

PSEUDO_LOGITS = 1 / 3, 1.0
"""Logits of a user, and of an item, that the mean logit over all rows counts as, in its mean logit."""


class Rows(NamedTuple):
    """B rows, for M models."""

    dense_MBD: Singles
    network_MBK: Singles
    label_BK: Singles
    logit_BT: Singles
    weight_B: Singles
    """How many impressions the labels of a row stand for."""


class Places(NamedTuple):
    """Where the tables have the ids of B rows: the user's slot is in one table, the others' in the other."""

    id_BE: NDArray[np.uint64]
    slot_BE: NDArray[np.int64]
    fresh_BE: NDArray[np.bool_]
    """Whether the slot was free, or another id's, before this row."""
    seen_BE: NDArray[np.int64]
    """Rows of the stream that had the id before this one."""
    taught_BE: NDArray[np.int64]
    """Rows of the bootstrap that had it before this one."""


class Known(NamedTuple):
    """What is known of the ids of one table; slot 0 is what is known of an id that is not remembered: the prior."""

    label_NK2: Floats
    """Count and sum."""
    logit_NT2: Floats
    """Count and sum."""
    mean_NMKJ: Singles
    variance_NMKJ: Singles
    sightings_N: NDArray[np.int64]
    """Rows of the stream."""
    taught_N: NDArray[np.int64]
    """Rows of the bootstrap."""


class Shared(NamedTuple):
    """What is known of all rows together."""

    weight_MKP: Floats
    covariance_MKPP: Floats
    blend_MKL: Floats
    blend_covariance_MKLL: Floats
    residual_MK2: Floats
    """Of regressions: count and sum of squared errors, in deviations of the label, beyond what v explains."""
    label_MK3: Floats
    """Count, sum and sum of squares; a bootstrap gives its own model some that the teacher expects."""
    logit_T3: Floats
    """Count, sum and sum of squares."""


class Rules(NamedTuple):
    """What does not change while a learner lives."""

    binary_K: NDArray[np.bool_]
    binary_T: NDArray[np.bool_]
    sees_teacher_M: Floats
    """1 for a model that sees the teacher's mean logits, else 0."""
    reach_E: Floats
    """How much of an id's effect a row takes; the user's is 1."""
    own_K: NDArray[np.int64]
    """The teacher task that stands for the teacher in a task; -1: none."""
    item_dense_I: NDArray[np.int64]
    drift_K: Floats
    """Added to the variance of a user's intercept at each sighting."""
    level_drift_K: Floats
    """Added to the variance of the blend's intercept at each label."""


class _Work(NamedTuple):
    """Of one row."""

    x_MKP: Floats
    z_MKJ: Floats
    gain_MKP: Floats
    moment_MK2: Floats
    """eta and v."""
    unit_MK3: Floats
    """Mean label, offset and scale of each task's values."""
    eta_ML: Floats
    """1, then the eta of each task: the columns of the blend."""
    blended_MK: Floats
    gain_L: Floats


@compiled
def score_rows(
    rows: Rows, places: Places, rules: Rules, shared: Shared, users: Known, ids: Known, learns: bool
) -> Floats:
    """The values [M, B, K]: means over the posterior, as logits of binary tasks.

    If it `learns`, each is predicted after the rows before it were learnt, and before its own row is. One function for
    both, since compiling it takes some seconds.
    """
    models, count, tasks = rows.network_MBK.shape
    value_MBK = np.zeros((models, count, tasks))
    work = _new_work(shared, users.mean_NMKJ.shape[3])
    for b in range(count):
        slot_E = places.slot_BE[b]
        if learns:
            _begin_new(slot_E, places.fresh_BE[b], users, ids)
            _drift(slot_E[0], rules, users)
        _predict(b, rows, slot_E, rules, shared, users, ids, work, value_MBK)
        if learns:
            weight = float(rows.weight_B[b])
            _learn(rows.label_BK[b], weight, slot_E, rules, shared, users, ids, work)
            _count(rows.label_BK[b], rows.logit_BT[b], weight, slot_E, shared, users, ids)
    return value_MBK


@compiled
def look_up(places: Places, users: Known, ids: Known) -> None:
    """Fill in how often the ids of rows have been seen."""
    for b in range(len(places.slot_BE)):
        for e in range(places.slot_BE.shape[1]):
            known, slot = users if e == 0 else ids, places.slot_BE[b, e]
            places.seen_BE[b, e], places.taught_BE[b, e] = known.sightings_N[slot], known.taught_N[slot]


@compiled
def see(places: Places, users: Known, ids: Known, taught: bool) -> None:
    """Count the ids of rows as seen once more, row by row, and fill in how often they were seen before."""
    for b in range(len(places.slot_BE)):
        for e in range(places.slot_BE.shape[1]):
            known, slot = users if e == 0 else ids, places.slot_BE[b, e]
            if slot == 0:
                continue
            if places.fresh_BE[b, e]:
                known.sightings_N[slot] = known.taught_N[slot] = 0
            places.seen_BE[b, e], places.taught_BE[b, e] = known.sightings_N[slot], known.taught_N[slot]
            if taught:
                known.taught_N[slot] += 1
            else:
                known.sightings_N[slot] += 1


@compiled
def begin(places: Places, users: Known, ids: Known) -> None:
    """Set the ids of rows that are new to the prior, which slot 0 holds."""
    for b in range(len(places.slot_BE)):
        _begin_new(places.slot_BE[b], places.fresh_BE[b], users, ids)


@compiled
def unit_of(label_3: Floats, binary: bool) -> tuple[float, float, float]:
    """Mean label, offset and scale of a task's values: log odds of the mean and 1 (binary), or mean and deviation."""
    count = max(label_3[0], 1.0)
    if binary:
        share = (label_3[1] + 1) / (label_3[0] + 2)
        return share, np.log(share / (1 - share)), 1.0
    mean, square = label_3[1] / count, label_3[2] / count
    variance = square - mean * mean
    # One value shows no deviation, and what is left of equal ones is rounding.
    return mean, mean, np.sqrt(variance) if label_3[0] > 1 and variance > 1e-9 * square else 1.0


@compiled
def mean_label(label_2: Floats, unit_3: Floats, binary: bool) -> float:
    """An id's shrunken mean label less that of all rows, in units of the task: of a binary one in log odds."""
    if not binary:
        return float((label_2[1] - label_2[0] * unit_3[0]) / (label_2[0] + _PSEUDO_LABELS) / unit_3[2])
    share = (label_2[1] + _PSEUDO_LABELS * unit_3[0]) / (label_2[0] + _PSEUDO_LABELS)
    share = min(max(share, _LEAST_SHARE), 1 - _LEAST_SHARE)
    return float(np.log(share / (1 - share)) - unit_3[1])


@compiled
def mean_logit(logit_2: Floats, logit_3: Floats, pseudo: float, binary: bool) -> float:
    """An id's shrunken mean logit less that of all rows; of a regression in deviations of all values."""
    _, offset, scale = unit_of(logit_3, False)
    return float((logit_2[1] - logit_2[0] * offset) / (logit_2[0] + pseudo) / (1.0 if binary else scale))


@compiled
def mean_labels(label_N2: Floats, unit_3: Floats, binary: bool) -> Floats:
    """`mean_label` of N ids."""
    mean_N = np.zeros(len(label_N2))
    for n in range(len(label_N2)):
        mean_N[n] = mean_label(label_N2[n], unit_3, binary)
    return mean_N


@compiled
def mean_logits(logit_N2: Floats, logit_3: Floats, pseudo: float, binary: bool) -> Floats:
    """`mean_logit` of N ids."""
    mean_N = np.zeros(len(logit_N2))
    for n in range(len(logit_N2)):
        mean_N[n] = mean_logit(logit_N2[n], logit_3, pseudo, binary)
    return mean_N


@compiled
def _new_work(shared: Shared, slopes: int) -> _Work:
    models, tasks, width = shared.weight_MKP.shape
    return _Work(
        np.zeros((models, tasks, width)),
        np.zeros((models, tasks, slopes)),
        np.zeros((models, tasks, width)),
        np.zeros((models, tasks, 2)),
        np.zeros((models, tasks, 3)),
        np.ones((models, tasks + 1)),
        np.zeros((models, tasks)),
        np.zeros(max(width, tasks + 1)),
    )


@compiled
def _begin_new(slot_E: NDArray[np.int64], fresh_E: NDArray[np.bool_], users: Known, ids: Known) -> None:
    for e in range(len(slot_E)):
        if fresh_E[e]:
            _begin(users if e == 0 else ids, slot_E[e])


@compiled
def _drift(user: int, rules: Rules, users: Known) -> None:
    """A user has changed since it was seen last."""
    if user > 0:
        for m in range(users.mean_NMKJ.shape[1]):
            for k in range(len(rules.drift_K)):
                users.variance_NMKJ[user, m, k, 0] += rules.drift_K[k]


@compiled
def _begin(known: Known, slot: int) -> None:
    """Set a slot to the prior, which slot 0 holds."""
    for i in range(2):
        for k in range(known.label_NK2.shape[1]):
            known.label_NK2[slot, k, i] = 0.0
        for t in range(known.logit_NT2.shape[1]):
            known.logit_NT2[slot, t, i] = 0.0
    _, models, tasks, slopes = known.mean_NMKJ.shape
    for m in range(models):
        for k in range(tasks):
            for j in range(slopes):
                known.mean_NMKJ[slot, m, k, j] = known.mean_NMKJ[0, m, k, j]
                known.variance_NMKJ[slot, m, k, j] = known.variance_NMKJ[0, m, k, j]


@compiled
def _predict(
    b: int,
    rows: Rows,
    slot_E: NDArray[np.int64],
    rules: Rules,
    shared: Shared,
    users: Known,
    ids: Known,
    work: _Work,
    value_MBK: Floats,
) -> None:
    """Columns, slopes, moments and blend of one row, and its values."""
    models, _, tasks = value_MBK.shape
    for m in range(models):
        for k in range(tasks):
            mean, offset, scale = unit_of(shared.label_MK3[m, k], rules.binary_K[k])
            work.unit_MK3[m, k, 0], work.unit_MK3[m, k, 1], work.unit_MK3[m, k, 2] = mean, offset, scale
            _fill_columns(b, m, k, slot_E, rows, rules, shared, users, ids, work)
            _fill_moments(m, k, slot_E, rules, shared, users, ids, work)
            work.eta_ML[m, 1 + k] = work.moment_MK2[m, k, 0]
    for m in range(models):
        for k in range(tasks):
            eta = 0.0
            for i in range(tasks + 1):
                eta += shared.blend_MKL[m, k, i] * work.eta_ML[m, i]
            work.blended_MK[m, k] = eta
            value = work.unit_MK3[m, k, 1] + work.unit_MK3[m, k, 2] * eta
            value_MBK[m, b, k] = _spread(value, work.moment_MK2[m, k, 1], rules.binary_K[k])


@compiled
def _spread(value: float, v: float, binary: bool) -> float:
    """The mean over the posterior, of which `v` is the variance of eta: nearer to 0 where it is a logit."""
    return float(value / np.sqrt(1 + np.pi * v / 8)) if binary else value


@compiled
def _fill_columns(
    b: int,
    m: int,
    k: int,
    slot_E: NDArray[np.int64],
    rows: Rows,
    rules: Rules,
    shared: Shared,
    users: Known,
    ids: Known,
    work: _Work,
) -> None:
    """In the order of `student.versions.served_posterior.Columns`."""
    x_P, z_J, unit_3, binary = work.x_MKP[m, k], work.z_MKJ[m, k], work.unit_MK3[m, k], rules.binary_K[k]
    user, item, last = slot_E[0], slot_E[1], len(z_J) - 1
    x_P[0] = z_J[0] = 1.0
    p = 1
    for e in range(len(slot_E)):
        label_2 = (users if e == 0 else ids).label_NK2[slot_E[e], k]
        x_P[p] = mean_label(label_2, unit_3, binary)
        x_P[p + 1] = np.log1p(label_2[0]) / 3
        p += 2
    for d in range(rows.dense_MBD.shape[2]):
        x_P[p] = rows.dense_MBD[m, b, d]
        p += 1
    for other in range(len(rules.binary_K)):
        x_P[p] = 0.0 if other == k else users.mean_NMKJ[user, m, other, 0]
        x_P[p + 1] = 0.0 if other == k else ids.mean_NMKJ[item, m, other, 0]
        p += 2
    network = (rows.network_MBK[m, b, k] - unit_3[1]) / unit_3[2]
    if np.isnan(network):  # of features so large that the network overflows; the posterior goes on without it
        network = 0.0
    x_P[p] = min(max(network, -LARGEST_NETWORK), LARGEST_NETWORK)
    z_J[last - 1], z_J[last] = x_P[p], 0.0
    p += 1
    for t in range(len(rules.binary_T)):
        logit_3, binary_logit, sees = shared.logit_T3[t], rules.binary_T[t], rules.sees_teacher_M[m]
        x_P[p] = mean_logit(users.logit_NT2[user, t], logit_3, PSEUDO_LOGITS[0], binary_logit) * sees
        x_P[p + 1] = mean_logit(ids.logit_NT2[item, t], logit_3, PSEUDO_LOGITS[1], binary_logit) * sees
        if t == rules.own_K[k]:
            z_J[last] = x_P[p + 1]
        p += 2
    for i in range(len(rules.item_dense_I)):
        z_J[1 + i] = rows.dense_MBD[m, b, rules.item_dense_I[i]]


@compiled
def _fill_moments(
    m: int, k: int, slot_E: NDArray[np.int64], rules: Rules, shared: Shared, users: Known, ids: Known, work: _Work
) -> None:
    """The moments eta and v, and the gains S x."""
    x_P, z_J, gain_P = work.x_MKP[m, k], work.z_MKJ[m, k], work.gain_MKP[m, k]
    weight_P, covariance_PP = shared.weight_MKP[m, k], shared.covariance_MKPP[m, k]
    _multiply(covariance_PP, x_P, gain_P)
    eta = v = 0.0
    for p in range(len(x_P)):
        eta += weight_P[p] * x_P[p]
        v += gain_P[p] * x_P[p]
    for j in range(len(z_J)):
        eta += users.mean_NMKJ[slot_E[0], m, k, j] * z_J[j]
        v += users.variance_NMKJ[slot_E[0], m, k, j] * z_J[j] * z_J[j]
    for e in range(1, len(slot_E)):
        eta += ids.mean_NMKJ[slot_E[e], m, k, 0] * rules.reach_E[e]
        v += ids.variance_NMKJ[slot_E[e], m, k, 0] * rules.reach_E[e] * rules.reach_E[e]
    work.moment_MK2[m, k, 0], work.moment_MK2[m, k, 1] = eta, v


@compiled
def _learn(
    label_K: Singles,
    weight: float,
    slot_E: NDArray[np.int64],
    rules: Rules,
    shared: Shared,
    users: Known,
    ids: Known,
    work: _Work,
) -> None:
    """A step of each model for every task with a label."""
    models, tasks, _ = work.moment_MK2.shape
    for k in range(tasks):
        if np.isnan(label_K[k]):
            continue
        for m in range(models):
            eta, v = work.moment_MK2[m, k, 0], work.moment_MK2[m, k, 1]
            target, level = float(label_K[k]), work.unit_MK3[m, k, 1]
            if not rules.binary_K[k]:
                target, level = (target - level) / work.unit_MK3[m, k, 2], 0.0
            h, error = _pull(target, level + eta, shared.residual_MK2[m, k], rules.binary_K[k])
            wh = weight * h
            _step(m, k, wh * error / (1 + wh * v), wh / (1 + wh * v), slot_E, rules, shared, users, ids, work)
            # The blend learns from the value that is served, the mean over the posterior, not from that of the mean.
            blended = _spread(level + work.blended_MK[m, k], v, rules.binary_K[k])
            h_blend, error_blend = _pull(target, blended, shared.residual_MK2[m, k], rules.binary_K[k])
            shared.blend_covariance_MKLL[m, k, 0, 0] += rules.level_drift_K[k]
            _step_blend(m, k, weight * h_blend, error_blend, shared, work)
            if not rules.binary_K[k]:
                shared.residual_MK2[m, k, 0] += weight
                shared.residual_MK2[m, k, 1] += weight * (error * error / (1 + h * v))


@compiled
def _pull(target: float, eta: float, residual_2: Floats, binary: bool) -> tuple[float, float]:
    """The curvature h and the error of one row."""
    if binary:
        p = 1 / (1 + np.exp(-eta))
        h = max(p * (1 - p), _LEAST_CURVATURE)
        return h, (target - p) / h
    error = min(max(target - eta, -_LARGEST_ERROR), _LARGEST_ERROR)
    return 1 / max(residual_2[1] / residual_2[0], _LEAST_NOISE), error


@compiled
def _step(
    m: int,
    k: int,
    pull: float,
    shrink: float,
    slot_E: NDArray[np.int64],
    rules: Rules,
    shared: Shared,
    users: Known,
    ids: Known,
    work: _Work,
) -> None:
    """The Kalman step m += s x `pull`, s -= (s x)^2 `shrink`, of the weights, the user and the other ids."""
    gain_P, z_J = work.gain_MKP[m, k], work.z_MKJ[m, k]
    weight_P, covariance_PP = shared.weight_MKP[m, k], shared.covariance_MKPP[m, k]
    for p in range(len(gain_P)):
        weight_P[p] += gain_P[p] * pull
    _shrink(covariance_PP, gain_P, shrink)
    for e in range(len(slot_E)):
        if slot_E[e] == 0:
            continue
        known = users if e == 0 else ids
        mean_J, variance_J = known.mean_NMKJ[slot_E[e], m, k], known.variance_NMKJ[slot_E[e], m, k]
        for j in range(len(mean_J)):
            gain = variance_J[j] * (z_J[j] if e == 0 else rules.reach_E[e])
            mean_J[j] += gain * pull
            variance_J[j] -= shrink * gain * gain


@compiled
def _step_blend(m: int, k: int, h: float, error: float, shared: Shared, work: _Work) -> None:
    weight_L, covariance_LL = shared.blend_MKL[m, k], shared.blend_covariance_MKLL[m, k]
    x_L, gain_L = work.eta_ML[m], work.gain_L
    _multiply(covariance_LL, x_L, gain_L)
    v = 0.0
    for i in range(len(x_L)):
        v += gain_L[i] * x_L[i]
    for i in range(len(x_L)):
        weight_L[i] += gain_L[i] * h * error / (1 + h * v)
    _shrink(covariance_LL, gain_L, h / (1 + h * v))


@compiled
def _multiply(covariance_PP: Floats, x_P: Floats, gain_P: Floats) -> None:
    """Set `gain_P` to S x, row by row of the symmetric S: the processor takes several numbers of a row at once.

    A column that is 0 costs nothing, such as those of the teacher in a control.
    """
    width = len(x_P)
    for p in range(width):
        gain_P[p] = 0.0
    for q in range(width):
        x = x_P[q]
        if x != 0.0:
            for p in range(width):
                gain_P[p] += covariance_PP[q, p] * x


@compiled
def _shrink(covariance_PP: Floats, gain_P: Floats, shrink: float) -> None:
    """Take `shrink` gain gain' from S, which stays symmetric to the last bit."""
    width = len(covariance_PP)
    for p in range(width):
        gain = gain_P[p]
        if gain != 0.0:
            for q in range(width):
                covariance_PP[p, q] -= shrink * (gain * gain_P[q])


@compiled
def _count(
    label_K: Singles,
    logit_T: Singles,
    weight: float,
    slot_E: NDArray[np.int64],
    shared: Shared,
    users: Known,
    ids: Known,
) -> None:
    """The row's labels, and the teacher's logits of its user and item, into the means."""
    for k in range(len(label_K)):
        label = float(label_K[k])
        if not np.isnan(label):
            for m in range(len(shared.label_MK3)):
                shared.label_MK3[m, k, 0] += weight
                shared.label_MK3[m, k, 1] += weight * label
                shared.label_MK3[m, k, 2] += weight * (label * label)
            for e in range(len(slot_E)):
                if slot_E[e] > 0:
                    known = users if e == 0 else ids
                    known.label_NK2[slot_E[e], k, 0] += weight
                    known.label_NK2[slot_E[e], k, 1] += weight * label
    for t in range(len(logit_T)):
        logit = float(logit_T[t])
        if not np.isnan(logit):
            shared.logit_T3[t, 0] += 1
            shared.logit_T3[t, 1] += logit
            shared.logit_T3[t, 2] += logit * logit
            for e in range(2):
                if slot_E[e] > 0:
                    known = users if e == 0 else ids
                    known.logit_NT2[slot_E[e], t, 0] += 1
                    known.logit_NT2[slot_E[e], t, 1] += logit
