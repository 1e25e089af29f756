"""Which inputs of the teacher take their default too often, measured on the rows scored."""

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

MOST_FALLBACKS = 0.2
"""Warned of beyond this share: fewer rows are new users and items, more are a map that does not fit."""
_ROWS = 1_000
"""A share is taken of at least so many rows, so that a few odd ones raise no warning."""
_ROWS_UNTIL_BACK = 10_000
"""A share is back when it was allowed for so many rows: an order of rows, as by user, is no news again and again."""

_LOG = logging.getLogger(__name__)
_SHARE = Gauge(
    "graft_teacher_input_fallback_share",
    "Share of the last thousand or more rows scored in which a mapped input took its default",
    ["input"],
)


class FallbackWatch:
    """Counts rows; logs when an input's share passes `allowed`, and when it has been allowed for 10,000 rows again."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed
        self._rows = 0
        self._fell_back: dict[str, int] = {}
        self._rows_below: dict[str, int] = {}
        """Of each input that was warned of: the rows since its share was last above."""

    def add(self, fell_back: Mapping[str, NDArray[np.bool_]]) -> None:
        """Count scored rows: by mapped input which of them took its default, [B]."""
        for name, fell_back_B in fell_back.items():
            self._fell_back[name] = self._fell_back.get(name, 0) + int(np.count_nonzero(fell_back_B))
        self._rows += max((len(fell_back_B) for fell_back_B in fell_back.values()), default=0)
        if self._rows >= _ROWS:
            self._judge()

    def _judge(self) -> None:
        allowed = f"{self._allowed:.1%}"
        for name, count in self._fell_back.items():
            share = count / self._rows
            _SHARE.labels(name).set(share)
            if share > self._allowed:
                if name not in self._rows_below:
                    _LOG.warning(
                        "teacher.inputs.%s took its default in %s of %d rows, more than %s: "
                        "its features are missing, unknown to its table, or do not fit; see 'graft teacher "
                        "explain'",
                        *(name, f"{share:.1%}", self._rows, allowed),
                    )
                self._rows_below[name] = 0
            elif name in self._rows_below:
                self._rows_below[name] += self._rows
                if self._rows_below[name] >= _ROWS_UNTIL_BACK:
                    rows = self._rows_below.pop(name)
                    _LOG.info("teacher.inputs.%s took its default in at most %s of %d rows", name, allowed, rows)
        self._rows, self._fell_back = 0, {}
