"""Which inputs of the teacher take their default more often than the project allows, measured on the rows scored."""

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

_ROWS = 1_000
"""A share is taken of at least so many rows, so that a few odd ones raise no warning."""

_LOG = logging.getLogger(__name__)
_SHARE = Gauge(
    "graft_teacher_input_fallback_share",
    "Share of the last thousand or more rows scored in which a mapped input took its default",
    ["input"],
)


class FallbackWatch:
    """Counts rows; logs when an input's share passes `allowed`, and when it is back."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed
        self._rows = 0
        self._fell_back: dict[str, int] = {}
        self._above: set[str] = set()

    def add(self, fell_back: Mapping[str, NDArray[np.bool_]]) -> None:
        """Count scored rows: by mapped input which of them took its default, [B]."""
        for name, fell_back_B in fell_back.items():
            self._fell_back[name] = self._fell_back.get(name, 0) + int(np.count_nonzero(fell_back_B))
        self._rows += max((len(fell_back_B) for fell_back_B in fell_back.values()), default=0)
        if self._rows >= _ROWS:
            self._judge()

    def _judge(self) -> None:
        for name, count in self._fell_back.items():
            share = count / self._rows
            _SHARE.labels(name).set(share)
            if share > self._allowed and name not in self._above:
                self._above.add(name)
                _LOG.warning(
                    "teacher.inputs.%s took its default in %s of %d rows, more than teacher.warn_fallback_share, %s: "
                    "its features are missing, unknown to its table, or do not fit; see 'graft teacher explain'",
                    *(name, _percent(share), self._rows, _percent(self._allowed)),
                )
            elif share <= self._allowed and name in self._above:
                self._above.remove(name)
                _LOG.info("teacher.inputs.%s took its default in %s of %d rows", name, _percent(share), self._rows)
        self._rows, self._fell_back = 0, {}


def _percent(share: float) -> str:
    return f"{share:.1%}"
