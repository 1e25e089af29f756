"""What a backfill has done, or would do."""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teacher_cache.cache.cache import LogitKey
from teacher_cache.domain.request_scorer import ScoredPlaces

_HASH_BYTES = 120
"""What Redis takes for a key and its hash beside the rows, about."""

_ROW_BYTES = 4
"""What a hash takes for a row beside its item's id and its logits, about; three times as much past 512 rows."""

_HAD, _PUT = 1, 2


class BackfillReport(NamedTuple):
    """What a backfill put (with `dry_run`: would put) into the cache.

    `rows` are distinct by user, item and the context that the teacher sees. `defaulted_share` is of the teacher's
    inputs, `fallback_share` of the mapped values. `left_out` rows were written with another feature spec, or the
    teacher cannot score them. `read` rows were looked at; `hit_rate_before` and `hit_rate_after` are the shares of them
    that had logits before and have some now.
    Of rows that are put without a look before, logits that are too old count as had.
    `teacher_seconds` and `bytes` are what the rows take of the teacher's time, and about what they take in Redis.
    """

    rows: int
    seconds: float
    defaulted_share: float
    fallback_share: float
    left_out: int
    read: int
    hit_rate_before: float
    hit_rate_after: float
    teacher_seconds: float
    bytes: int


class Counts(NamedTuple):
    """What the numbers of a report are made of; those of parts that share no user add up to those of the whole.

    `looked` rows are distinct as those of a report, as `had` (logits before), `has` (some now) and `put` are.
    `fallen_back` is of mapped values, in rows.
    """

    read: int = 0
    left_out: int = 0
    looked: int = 0
    had: int = 0
    has: int = 0
    put: int = 0
    to_score: int = 0
    scored_rows: int = 0
    fallen_back: float = 0.0
    teacher_rows: int = 0
    teacher_seconds: float = 0.0
    bytes: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(one + more for one, more in zip(self, other, strict=True)))  # type: ignore[arg-type]

    def report(self, seconds: float, defaulted_share: float) -> BackfillReport:
        """What it came to, after so many seconds."""
        return BackfillReport(
            rows=self.put,
            seconds=seconds,
            defaulted_share=defaulted_share,
            fallback_share=self.fallen_back / max(1, self.scored_rows),
            left_out=self.left_out,
            read=self.read,
            hit_rate_before=self.had / max(1, self.looked),
            hit_rate_after=self.has / max(1, self.looked),
            teacher_seconds=self.teacher_seconds / max(1, self.teacher_rows) * self.to_score,
            bytes=self.bytes,
        )


class Tally:
    """Counts while a backfill goes on, from what was counted `before`. What a dry run has not scored counts."""

    def __init__(self, before: Counts) -> None:
        self._counts = before
        self._started = time.monotonic()
        self._known: dict[int, int] = {}  # by the hash of a row: whether it had logits (_HAD), and has new ones (_PUT)
        self._hashes: set[int] = set()  # of keys
        self._row_bytes = _ROW_BYTES

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def counts(self) -> Counts:
        """As of now. A row that came `before` too counts twice."""
        return self._counts

    def scored(self, rows: int, seconds: float) -> None:
        """The teacher was asked for so many rows."""
        self._add(teacher_rows=rows, teacher_seconds=seconds)

    def look(self, keys: Iterable[LogitKey], had_B: NDArray[np.bool_]) -> None:
        """Of the rows of these keys `had_B` had logits that are not too old when they were looked up."""
        looked = hits = 0
        for key, had in zip(keys, had_B.tolist(), strict=True):
            place = hash(key)
            if place not in self._known:
                self._known[place] = _HAD if had else 0
                looked += 1
                hits += had
        self._add(looked=looked, had=hits, has=hits)

    def add(
        self,
        read: int,
        left_out: int,
        wanted: int,
        put: Sequence[LogitKey],
        scored: ScoredPlaces | None,
        already: int = 0,
    ) -> None:
        """Of `read` messages `left_out` are of another feature spec; of the others `wanted` rows were to be scored.

        `put`: the keys of those that were `scored`, of all of them where none was. Redis had `already` so many of them;
        those that were not looked up had logits as far as this backfill did not put them.
        """
        self._add(read=read, left_out=left_out + wanted - len(put), to_score=wanted)
        if scored is not None:
            self._add(scored_rows=len(put), fallen_back=scored.fallback_share * len(put))
            self._row_bytes = 4 * (1 + scored.logit_BT.shape[1]) + _ROW_BYTES
        places = list(map(hash, put))
        states = list(map(self._known.get, places))
        looked, neither = states.count(None), states.count(0)
        had = min(looked, max(0, already - (len(states) - looked - neither)))
        new = [key for key, state in zip(put, states, strict=True) if not state or not state & _PUT]
        hashes = len(self._hashes)
        self._hashes.update([hash(key.hash_key) for key in new])
        self._known.update(dict.fromkeys(places, _PUT))
        size = self._row_bytes * len(new) + sum(len(key.field) for key in new)
        size += _HASH_BYTES * (len(self._hashes) - hashes)
        self._add(looked=looked, had=had, has=looked + neither, put=len(new), bytes=size)

    def _add(self, **more: float) -> None:
        self._counts = self._counts.plus(Counts(**more))  # type: ignore[arg-type]
