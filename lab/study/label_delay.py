"""When labels are known: which examples a prediction may have learnt from. Shape: N examples."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class LabelDelay(NamedTuple):
    """How long after its impression the labels of an example are known: event time, or so many later impressions."""

    seconds: float
    rows: int | None = None
    """In place of `seconds`, where it is given."""

    def known(self, event_times_ms: Sequence[int]) -> NDArray[np.intp]:
        """For each of N impressions the place of the first impression that comes when its labels are known.

        N where none does. Both are in the order of the log; the places do not fall, as examples are learnt in order.
        """
        count = len(event_times_ms)
        row_N = np.arange(count)
        if self.rows is not None:
            known_N = row_N + 1 + self.rows
        else:
            time_N = np.maximum.accumulate(np.asarray(event_times_ms, np.float64))
            known_N = np.searchsorted(time_N, time_N + 1000 * self.seconds)
        return np.clip(np.maximum(known_N, row_N + 1), 0, count).astype(np.intp)
