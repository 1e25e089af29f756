"""The served posterior in numpy: its mean for each row, from what a version knows of all columns and ids.

The learner's arithmetic (student/learn/posterior_kernel.py) without the learning. Shapes: B rows, K tasks, P columns,
E ids of a row, D dense columns, I of them of the item, C categorical columns, T teacher tasks, J slopes of a user.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH
from student.versions import served_posterior as served
from student.versions.columns import LARGEST_NETWORK, Columns, ids_of

Floats = NDArray[np.float32]


class NumpyPosterior:
    """`binary_K`: the kinds of all tasks. `tensors` are kept, not copied; they must have no fault."""

    def __init__(self, columns: Columns, binary_K: NDArray[np.bool_], tensors: Mapping[str, NDArray[Any]]) -> None:
        self._columns, self._order, self._binary_K1 = columns, served.KnownOrder(columns), binary_K[:, None]
        self._weight_KP1 = tensors[served.WEIGHT][:, :, None]
        self._covariance_KPP = tensors[served.COVARIANCE]
        self._blend_KL, self._reach_E, self._own_KT = (tensors[n] for n in (served.BLEND, served.REACH, served.OWN))
        self._offset_K1, self._scale_K1 = tensors[served.UNIT].T[:, :, None]
        self._users = tensors[served.USER_KEY], tensors[served.USER_KNOWN]
        self._ids = tensors[served.ID_KEY], tensors[served.ID_KNOWN]

    def known_of(self, category_BC: NDArray[np.uint64]) -> tuple[Floats, Floats]:
        """What is known of the users of B rows [B, R], and of their other ids [B, E - 1, R]."""
        id_BE = ids_of(self._columns, category_BC)
        user_BR = served.known_of(*self._users, id_BE[:, 0])
        id_bR = served.known_of(*self._ids, id_BE[:, 1:].ravel())
        return user_BR, id_bR.reshape(*id_BE[:, 1:].shape, self._order.id_width)

    def admitted(self, category_BC: NDArray[np.uint64], user_BR: Floats, id_BeR: Floats) -> NDArray[np.uint64]:
        """The categories without those that the network does not embed, which have the hash of a missing one."""
        admitted_BC = category_BC.copy()
        for e, c in enumerate(self._columns.id_columns):
            if c is not None:
                known_BR = user_BR if e == 0 else id_BeR[:, e - 1]
                admitted_BC[known_BR[:, self._order.admitted] == 0, c] = MISSING_HASH
        return admitted_BC

    def score(self, user_BR: Floats, id_BeR: Floats, dense_BD: Floats, network_KB: Floats) -> Floats:
        """The values [K, B]: means over the posterior, as logits of binary tasks. `dense_BD` is in its units."""
        scaled_KB = (network_KB - self._offset_K1) / self._scale_K1
        network_KB = scaled_KB.clip(-LARGEST_NETWORK, LARGEST_NETWORK)
        x_KBP = self._columns_of(user_BR, id_BeR, dense_BD, network_KB)
        eta_KB = (x_KBP @ self._weight_KP1)[:, :, 0]
        v_KB = np.einsum("kbp,kbp->kb", x_KBP @ self._covariance_KPP, x_KBP)
        self._add_effects(eta_KB, v_KB, user_BR, id_BeR)
        self._add_slopes(eta_KB, v_KB, user_BR, self._slopes_of(id_BeR, dense_BD, network_KB))
        blended_KB = self._blend_KL[:, :1] + self._blend_KL[:, 1:] @ eta_KB
        value_KB = self._offset_K1 + self._scale_K1 * blended_KB
        mean_KB: Floats = np.where(self._binary_K1, value_KB / np.sqrt(1 + np.float32(np.pi / 8) * v_KB), value_KB)
        return mean_KB

    def _columns_of(self, user_BR: Floats, id_BeR: Floats, dense_BD: Floats, network_KB: Floats) -> Floats:
        columns, order = self._columns, self._order
        x_KBP = np.empty((*network_KB.shape, columns.width), np.float32)
        x_KBP[:, :, 0] = 1
        for part, first in ((order.mean, 1), (order.count, 2)):
            x_KBP[:, :, first] = user_BR[:, part].T
            x_KBP[:, :, first + 2 : columns.aggregates.stop : 2] = id_BeR[:, :, part].transpose(2, 0, 1)
        x_KBP[:, :, columns.dense] = dense_BD
        for part, pairs in ((order.effect, columns.effects), (order.logit, columns.teacher)):
            x_KBP[:, :, pairs.start : pairs.stop : 2] = user_BR[:, part]
            x_KBP[:, :, pairs.start + 1 : pairs.stop : 2] = id_BeR[:, 0, part]
        for k in range(columns.tasks):
            x_KBP[k, :, columns.effects.start + 2 * k : columns.effects.start + 2 * k + 2] = 0
        x_KBP[:, :, columns.network] = network_KB
        return x_KBP

    def _slopes_of(self, id_BeR: Floats, dense_BD: Floats, network_KB: Floats) -> Floats:
        """What a user's slopes are on: z without its first, the intercept."""
        columns = self._columns
        z_KBJ = np.empty((*network_KB.shape, columns.slopes - 1), np.float32)
        z_KBJ[:, :, :-2] = dense_BD[:, columns.item_dense]
        z_KBJ[:, :, -2] = network_KB
        z_KBJ[:, :, -1] = self._own_KT @ id_BeR[:, 0, self._order.logit].T
        return z_KBJ

    def _add_effects(self, eta_KB: Floats, v_KB: Floats, user_BR: Floats, id_BeR: Floats) -> None:
        reach_e = self._reach_E[1:]
        eta_KB += user_BR[:, self._order.effect].T + np.einsum("bek,e->kb", id_BeR[:, :, self._order.effect], reach_e)
        variance_BeK = id_BeR[:, :, self._order.variance]
        v_KB += user_BR[:, self._order.variance].T + np.einsum("bek,e->kb", variance_BeK, reach_e**2)

    def _add_slopes(self, eta_KB: Floats, v_KB: Floats, user_BR: Floats, z_KBJ: Floats) -> None:
        shape = len(user_BR), self._columns.tasks, -1
        eta_KB += np.einsum("bkj,kbj->kb", user_BR[:, self._order.slope].reshape(shape), z_KBJ)
        v_KB += np.einsum("bkj,kbj->kb", user_BR[:, self._order.slope_variance].reshape(shape), z_KBJ**2)
