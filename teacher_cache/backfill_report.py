"""What a backfill has done, or would do."""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.events import TeacherRequest
from teacher_cache.request_scorer import ScoredRows

_USER_BYTES = 160
"""What Redis takes for a user's key and hash beside the rows, about."""

_ROW_BYTES = 4
"""What a hash takes for a row beside its item's id and its logits, about; three times as much past 512 rows."""

_UNSHOWN_BYTES = 200
"""What Redis takes for the unshown rows of an impression beside their numbers, about."""

_LOGIT_BYTES = 60
"""What an unshown row takes for its logits as JSON, about."""

_HAD, _PUT = 1, 2


class BackfillReport(NamedTuple):
    """What a backfill put (with `dry_run`: would put) into the cache.

    `rows` are distinct by user and item. `defaulted_share` is of the teacher's inputs, `fallback_share` of the mapped
    values. `left_out` rows were written with another feature spec, or the teacher cannot score them. `unshown_rows`
    have items of other impressions; they are put beside the `rows`. `read` rows were looked at;
    `hit_rate_before` and `hit_rate_after` are the shares of them that had logits before and have some now.
    `teacher_seconds` and `bytes` are what the rows take of the teacher's time, and about what they take in Redis.
    """

    rows: int
    seconds: float
    defaulted_share: float
    fallback_share: float
    left_out: int
    unshown_rows: int
    read: int
    hit_rate_before: float
    hit_rate_after: float
    teacher_seconds: float
    bytes: int


class Tally:
    """Counts while a backfill goes on. What a dry run has not scored counts as scored."""

    def __init__(self) -> None:
        self.read = self.left_out = self.teacher_rows = 0
        self._started = time.monotonic()
        self._known: dict[int, int] = {}  # by the hash of a row: whether it had logits (_HAD), and has new ones (_PUT)
        self._users: set[int] = set()
        self._to_score = self._unshown_rows = self._scored_rows = self._bytes = 0
        self._row_bytes = _ROW_BYTES
        self._teacher_seconds = self._fallen_back = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def scored(self, rows: int, seconds: float) -> None:
        """The teacher was asked for so many rows."""
        self.teacher_rows += rows
        self._teacher_seconds += seconds

    def look(self, rows: Sequence[TeacherRequest], had_B: NDArray[np.bool_]) -> None:
        """Of these rows `had_B` had logits when they were read."""
        for row, had in zip(rows, had_B.tolist(), strict=True):
            self._known.setdefault(_hash(row), _HAD if had else 0)

    def add(self, read: int, left_out: int, rows: Sequence[TeacherRequest], scored: ScoredRows | None) -> None:
        """Of `read` messages `left_out` are of another feature spec; of the others these `rows` were to be scored."""
        put = rows if scored is None else scored.requests
        self.read += read
        self.left_out += left_out + len(rows) - len(put)
        self._to_score += len(rows)
        if scored is not None:
            self._scored_rows += len(put)
            self._fallen_back += scored.fallback_share * len(put)
            self._row_bytes = 4 * (1 + scored.logit_BT.shape[1]) + _ROW_BYTES
        for row in put:
            self._users.add(hash(str(row.user_id)))
            place = _hash(row)
            if not self._known.get(place, 0) & _PUT:
                self._bytes += self._row_bytes + len(str(row.item_id))
            self._known[place] = self._known.get(place, 0) | _PUT

    def add_unshown(self, rows: Sequence[TeacherRequest], scored: ScoredRows | None) -> None:
        """These unshown rows were to be scored."""
        put = rows if scored is None else scored.requests
        self._unshown_rows += len(put)
        self._bytes += _UNSHOWN_BYTES * len({row.impression_id for row in put})
        self._bytes += sum(len(json.dumps(row.features)) for row in put) + _LOGIT_BYTES * len(put)

    def report(self, defaulted_share: float) -> BackfillReport:
        """What it came to."""
        states = list(self._known.values())
        looked = max(1, len(states))
        asked = self._to_score + self._unshown_rows
        return BackfillReport(
            rows=sum(state & _PUT > 0 for state in states),
            seconds=self.seconds,
            defaulted_share=defaulted_share,
            fallback_share=self._fallen_back / max(1, self._scored_rows),
            left_out=self.left_out,
            unshown_rows=self._unshown_rows,
            read=self.read,
            hit_rate_before=sum(state & _HAD > 0 for state in states) / looked,
            hit_rate_after=sum(state > 0 for state in states) / looked,
            teacher_seconds=self._teacher_seconds / max(1, self.teacher_rows) * asked,
            bytes=self._bytes + _USER_BYTES * len(self._users),
        )


def _hash(row: TeacherRequest) -> int:
    return hash((str(row.user_id), str(row.item_id)))
