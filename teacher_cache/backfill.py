"""Fills the teacher cache from history: teacher requests, examples, or impressions with the features of now.

Idempotent: run it again after a failure. It may run beside the batch scorer; the last one to put a row's logits holds.
Unshown rows follow from the requests and their order alone: the same requests give the same rows, however often.

Shapes: B rows.
"""

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.lookup import Columns, FeatureReader
from features.spec import FeatureSpec
from runtime.absence import Absence, StoppedError, wait_for
from runtime.telemetry import StopSignal
from stream.events import Impression, TeacherRequest
from teacher_cache.backfill_report import BackfillReport, Counts, Tally
from teacher_cache.cache import LogitCache, LogitKey
from teacher_cache.histories import Offsets
from teacher_cache.request_scorer import BATCH_ROWS, RequestScorer, ScoredRows
from teacher_cache.unshown import UnshownScorer

Progress = Callable[[int, int | None], None]
"""Called with the rows done and their total, None when it is not known."""

_SAMPLED_ROWS = 4_096
"""Rows that a dry run scores, to tell how long the others take."""

_Row = TypeVar("_Row")
_LOG = logging.getLogger(__name__)


class Manner(NamedTuple):
    """How a backfill goes about it.

    `dry_run`: put nothing, and score no more than a sample. `missing_only`: leave out rows whose logits are there.
    `max_rows_per_second`: of the teacher, unshown rows included; None: as fast as it goes.
    """

    dry_run: bool = False
    missing_only: bool = False
    max_rows_per_second: float | None = None


def backfill(  # noqa: PLR0913 - the parts of a process, and by keyword how it goes
    requests: Iterable[TeacherRequest],
    scorer: RequestScorer,
    cache: LogitCache,
    unshown: UnshownScorer | None = None,
    *,
    progress: Progress,
    batch_rows: int = BATCH_ROWS,
    manner: Manner = Manner(),  # noqa: B008 - immutable
    position: Callable[[], Offsets] = dict,
    put: Callable[[Counts, Offsets], None] = lambda _counts, _position: None,
    before: Counts = Counts(),  # noqa: B008 - immutable
    stop: StopSignal | None = None,
) -> BackfillReport:
    """Score `requests` in batches and put their logits; of rows with one key (`LogitCache.keys_of`) the last holds.

    With `unshown`, other items for the user of each request are scored and put before its own logits. After each
    batch that is in Redis `put` is called with what was counted, and with what `position` said when the batch had been
    read; counting goes on from `before`. Memory holds two batches, since without `unshown` the next one is read while
    the teacher computes, and a 64-bit hash of each distinct row to count it. Waits while Redis or the teacher is away;
    StoppedError when `stop` is set then, or between two batches.
    """
    rate = manner.max_rows_per_second
    if rate is not None:
        batch_rows = max(1, min(batch_rows, int(rate)))
    stop = stop or StopSignal()
    work = _Work(scorer, cache, unshown, manner, stop, Tally(before))
    read = ((batch, dict(position())) for batch in _batches(requests, batch_rows))
    # Unshown rows follow from the order in which requests are read and sampled: there nothing is read ahead.
    for batch, reached in read if unshown is not None else _ahead(read):
        if stop.is_set():
            raise StoppedError
        work.fill(batch)
        counts = work.tally.counts()
        if not manner.dry_run:
            work.until_redis(partial(put, counts, reached))
        progress(counts.read, None)
        work.keep_pace()
    counts = work.tally.counts()
    if counts.left_out:
        _LOG.warning("left out rows=%d of another feature spec, or that the teacher cannot score", counts.left_out)
    return counts.report(work.tally.seconds, scorer.defaulted_share)


class _Work:
    """One backfill."""

    def __init__(
        self,
        scorer: RequestScorer,
        cache: LogitCache,
        unshown: UnshownScorer | None,
        manner: Manner,
        stop: StopSignal,
        tally: Tally,
    ) -> None:
        self._scorer, self._cache, self._unshown = scorer, cache, unshown
        self._manner, self._stop = manner, stop
        self._redis = Absence("redis", "waiting for it, no row is lost")
        self._teacher = Absence("teacher", "the same call is made again, no row is lost")
        self.tally = tally

    def fill(self, batch: Sequence[TeacherRequest]) -> None:
        """Score what of the batch is to be scored, and put it; unshown rows first."""
        usable = [request for request in batch if self._scorer.describes(request)]
        last_of = dict(zip(self._cache.keys_of(usable), usable, strict=True))
        had_B = self._in_cache(list(last_of))
        self.tally.look(last_of, had_B)
        if self._manner.missing_only:
            last_of = {key: row for (key, row), had in zip(last_of.items(), had_B, strict=True) if not had}
        self._fill_unshown(usable, last_of)
        scored = self._score(list(last_of.values()), self._scorer.score)
        keys = list(last_of) if scored is None else self._cache.keys_of(scored.requests)
        self.tally.add(len(batch), len(batch) - len(usable), len(last_of), keys, scored)
        if scored is not None and not self._manner.dry_run:
            now_ms = time.time_ns() // 1_000_000
            self.until_redis(partial(self._cache.put, keys, scored.logit_BT, now_ms))

    def keep_pace(self) -> None:
        """Wait as long as the rate asks for."""
        rate = self._manner.max_rows_per_second
        early = 0.0 if rate is None else self.tally.teacher_rows / rate - self.tally.seconds
        if early > 0:
            self._stop.wait(early)

    def until_redis(self, attempt: Callable[[], _Row]) -> _Row:
        """What `attempt` gives, once Redis answers."""
        return wait_for(attempt, self._redis, self._stop)

    def _in_cache(self, keys: Sequence[LogitKey]) -> NDArray[np.bool_]:
        found = self.until_redis(partial(self._cache.get, keys))
        return np.asarray(np.isfinite(found.logit_BT).all(axis=1), np.bool_)

    def _fill_unshown(self, requests: Sequence[TeacherRequest], wanted: Container[LogitKey]) -> None:
        """The unshown rows of these requests, as far as their own rows are `wanted`, to be scored."""
        if self._unshown is None:
            return
        others = [
            other
            for request, key in zip(requests, self._cache.keys_of(requests), strict=True)
            for other in self._unshown.sample([request])
            if key in wanted
        ]
        scored = self._score(others, self._unshown.score)
        self.tally.add_unshown(others, scored)
        if scored is not None and not self._manner.dry_run:
            self.until_redis(partial(self._unshown.put, scored))

    def _score(
        self, rows: Sequence[TeacherRequest], score: Callable[[Sequence[TeacherRequest]], ScoredRows | None]
    ) -> ScoredRows | None:
        """The rows scored; None of no rows, and of those beyond a dry run's sample."""
        if not rows or (self._manner.dry_run and self.tally.teacher_rows >= _SAMPLED_ROWS):
            return None
        started = time.monotonic()
        scored = wait_for(partial(score, rows), self._teacher, self._stop)
        self.tally.scored(len(rows), time.monotonic() - started)
        return scored


def requests_of_impressions(
    impressions: Iterable[Impression], reader: FeatureReader, spec: FeatureSpec, batch_rows: int = BATCH_ROWS
) -> Iterator[TeacherRequest]:
    """Impressions as teacher requests with the entities' features of now, read in batches; in their order."""
    for batch in _batches(impressions, batch_rows):
        columns = reader.read(
            [impression.user_id for impression in batch],
            [impression.item_id for impression in batch],
            [impression.context for impression in batch],
        )
        yield from requests_of_columns(batch, columns, spec)


def requests_of_columns(
    impressions: Sequence[Impression], columns: Columns, spec: FeatureSpec
) -> Iterator[TeacherRequest]:
    """Impressions, which were checked, as teacher requests with these raw features by name."""
    for impression, features in zip(impressions, spec.rows_of(columns), strict=True):
        yield TeacherRequest.of_checked({**impression.__dict__, "spec_id": spec.spec_id, "features": features})


def _ahead(items: Iterator[_Row]) -> Iterator[_Row]:
    """The same items; the next one is made in a thread while the last one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="backfill-reader") as reader:
        following = reader.submit(next, items, None)
        while (item := following.result()) is not None:
            following = reader.submit(next, items, None)
            yield item


def _batches(rows: Iterable[_Row], batch_rows: int) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, batch_rows)):
        yield batch
