"""Rows of a batch view that begin after the impression for which they were read: they are never its features.

The online store has one row of an entity, the newest. To an impression that is older it would tell the future, above
all when history is replayed. What the row has replaced is no longer known, so the values are missing.

B impressions.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from prometheus_client import Counter

from features.values import decode_begin_ms

LATER_ROWS = Counter(
    "graft_features_later_rows_total", "Batch rows that begin after the impression; read as a miss", ["view"]
)

_log = logging.getLogger(__name__)
_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_begin_ms = lru_cache(maxsize=1 << 16)(decode_begin_ms)  # a table has few distinct times


class LaterRows:
    """Finds such rows, counts them, and logs the first of each view."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def find(
        self, view: str, begins: Sequence[bytes | None], rows_B: Sequence[int], event_times_ms: Sequence[int]
    ) -> list[int]:
        """Which of the B impressions have a later row.

        `begins`: for each entity the time from which its row holds, as Feast stores it. `rows_B`: their entities.
        """
        begins_ms = [_begin_ms(begin) if begin else None for begin in begins]
        later = [
            number
            for number, (entity, shown_ms) in enumerate(zip(rows_B, event_times_ms, strict=True))
            if (begin_ms := begins_ms[entity]) is not None and begin_ms > shown_ms
        ]
        if later:
            LATER_ROWS.labels(view).inc(len(later))
            self._log_first(view, begins_ms[rows_B[later[0]]] or 0, event_times_ms[later[0]])
        return later

    def _log_first(self, view: str, begin_ms: int, shown_ms: int) -> None:
        if view in self._logged:
            return
        self._logged.add(view)
        _log.warning(
            "feature view %s: a row that begins at %s is missing to an impression of %s; further ones are counted in "
            "graft_features_later_rows_total; before a replay of history 'graft features materialize --until' loads "
            "the rows of its beginning",
            view,
            _1970 + timedelta(milliseconds=begin_ms),
            _1970 + timedelta(milliseconds=shown_ms),
        )
