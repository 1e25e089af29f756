"""Where one version has the items that the reader holds, so that a request need not search its tables for each of them.

Shapes: N slots of the reader's table, B rows of a request, C categorical columns, E ids of a row, X: E + C.
"""

import numpy as np
from numpy.typing import NDArray

from features.async_reader import RequestRows
from features.item_table import NOWHERE
from features.spec import FeatureSpec
from student.versions.numpy_model import NumpyStudent, Places

_NONE = -1
"""No row has this stamp."""


class ItemPlaces:
    """The places of the rows of a reader's table by `student`, each searched once, until its stamp is another."""

    def __init__(self, spec: FeatureSpec, student: NumpyStudent) -> None:
        self._student = student
        self._shared_X = ~student.of_item(spec)
        # The last row is that of NOWHERE, which has no stamp.
        self._place_NX: Places = student.places(np.zeros((1, len(spec.categorical)), np.uint64))
        self._stamp_N = np.full(1, _NONE)

    def learn_all(self, category_NC: NDArray[np.uint64], stamp_N: NDArray[np.int64]) -> None:
        """Search those of a whole table, which `ItemTable.all_rows` copies: in a thread, before the version serves."""
        self._place_NX, self._stamp_N = self._student.places(category_NC), stamp_N
        self._stamp_N[NOWHERE] = _NONE

    def of(self, rows: RequestRows) -> Places:
        """The places of the rows: those of `NumpyStudent.places`."""
        category_BC, slot_B = rows.batch.categorical_BC, rows.slot_B
        if (last := slot_B.max()) >= len(self._stamp_N) - 1:
            self._grow(int(last) + 1)
        place_BX = self._place_NX.take(slot_B, axis=0)
        (unknown_B,) = (self._stamp_N.take(slot_B) != rows.stamp_B).nonzero()
        if len(unknown_B):
            place_BX[unknown_B] = self._student.places(category_BC[unknown_B])
            kept_B = unknown_B[slot_B[unknown_B] != NOWHERE]
            self._place_NX[slot_B[kept_B]], self._stamp_N[slot_B[kept_B]] = place_BX[kept_B], rows.stamp_B[kept_B]
        np.copyto(place_BX, self._student.places(category_BC[:1]), where=self._shared_X)
        return place_BX

    def _grow(self, slots: int) -> None:
        size = 1 + max(slots, 2 * len(self._stamp_N))
        place_NX, stamp_N = np.zeros((size, self._place_NX.shape[1]), np.int32), np.full(size, _NONE)
        place_NX[: len(self._stamp_N)], stamp_N[: len(self._stamp_N)] = self._place_NX, self._stamp_N
        self._place_NX, self._stamp_N = place_NX, stamp_N
