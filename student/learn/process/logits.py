"""Teacher logits of examples: waits a short time for those that the batch scorer has not written yet.

Shapes: B examples, b examples of one rank, T teacher tasks.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from runtime.errors import ServiceUnavailableError
from runtime.outage import Outage
from runtime.telemetry import StopSignal
from stream.events import Example
from teacher_cache.cache.cache import CachedLogits, LogitCache

LOGITS = Counter("graft_student_logits_total", "Examples learnt with and without a teacher logit", ["outcome"])
AGE = Histogram(
    "graft_student_logit_age_seconds",
    "Age of the teacher logits used",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 3600, 86_400),
)

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05  # a look-up takes about 0.5 ms
_COUNT_SECONDS = 1.0
_MOST_SKIPPED = 1023  # batches learnt without a wait before the next try


class LogitSource:
    """Looks logits up and waits up to `wait_seconds` of wall clock for missing ones.

    A wait that brings no logit is not repeated at once: the next batch goes without a wait, after the next such wait 3
    batches, then 7, up to 1,023. A wait that brings one sets this back. So a teacher that is absent, or a row that it
    never scores, costs a few waits, not one per batch. An unreachable Redis counts as no logits.
    """

    def __init__(self, cache: LogitCache, tasks: int, wait_seconds: float) -> None:
        self._cache = cache
        self._tasks = tasks
        self._wait_seconds = wait_seconds
        self._skips_after_wait = 0
        self._skips_left = 0
        self._redis = Outage("redis", "learning from the labels alone", stops_work=False)
        self._uncounted = np.zeros(2, np.int64)  # hits, misses
        self._next_count = 0.0
        self._answers = True  # Redis, at the last look-up

    def fetch(self, examples: Sequence[Example], stop: StopSignal) -> NDArray[np.float32] | None:
        """Logits [B, T], a row of NaN for each miss. None when `stop` was set while some were missing."""
        found = self._get(examples)
        missing_B = _missing(found)
        if missing_B.any() and self._may_wait():
            waited = self._wait(examples, found, missing_B, stop)
            if waited is None:
                return None
            found = waited
        self._count(found)
        return found.logit_BT

    def _count(self, found: CachedLogits) -> None:
        """In this process's metrics at once, and in Redis once a second, for `graft teacher ls`."""
        missing_B = _missing(found)
        misses, hits = int(missing_B.sum()), int((~missing_B).sum())
        LOGITS.labels("miss").inc(misses)
        LOGITS.labels("hit").inc(hits)
        for age in found.age_seconds_B[~missing_B]:
            AGE.observe(age)
        self._uncounted += (hits, misses)
        if self._answers and time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + _COUNT_SECONDS
            with suppress(ServiceUnavailableError):  # the next look-up says so
                self._cache.count_reads(*self._uncounted.tolist())
                self._uncounted[:] = 0

    def _may_wait(self) -> bool:
        if self._wait_seconds <= 0:
            return False
        if self._skips_left:
            self._skips_left -= 1
            return False
        return True

    def _wait(
        self, examples: Sequence[Example], found: CachedLogits, missing_B: NDArray[np.bool_], stop: StopSignal
    ) -> CachedLogits | None:
        deadline = time.monotonic() + self._wait_seconds
        first_missing = missing_B.sum()
        while missing_B.any() and time.monotonic() < deadline:
            if stop.wait(_POLL_SECONDS):
                return None
            rows = np.flatnonzero(missing_B)
            late = self._get([examples[int(i)] for i in rows])
            found.logit_BT[rows], found.age_seconds_B[rows] = late
            missing_B = _missing(found)
        self._note_wait(brought_logits=missing_B.sum() < first_missing)
        return found

    def _note_wait(self, *, brought_logits: bool) -> None:
        if brought_logits:
            self._skips_after_wait = 0
            return
        if not self._skips_after_wait:
            _log.warning(
                "no teacher logit of generation %s came within %g s; learning from the labels alone",
                self._cache.generation,
                self._wait_seconds,
            )
        self._skips_after_wait = min(2 * self._skips_after_wait + 1, _MOST_SKIPPED)
        self._skips_left = self._skips_after_wait

    def _get(self, examples: Sequence[Example]) -> CachedLogits:
        try:
            found = self._cache.get(self._cache.keys_of(examples))
        except ServiceUnavailableError as error:
            self._answers = False
            self._redis.failed(error)  # no wait here: the next look-up is the next try
            return CachedLogits(
                np.full((len(examples), self._tasks), np.nan, np.float32), np.full(len(examples), np.nan)
            )
        self._answers = True
        self._redis.ended()
        return found


def _missing(found: CachedLogits) -> NDArray[np.bool_]:
    return np.asarray(np.isnan(found.logit_BT).any(axis=1), np.bool_)
