"""Fills the teacher cache from history: teacher requests, examples, or impressions with the features of now.

Idempotent: run it again after a failure. It may run beside the batch scorer; the last one to put a row's logits holds.

Three threads share the work, so that the teacher is not waited for: one reads and maps the next batches while the
teacher computes this one, whose results the third puts. See docs/decisions/027-backfill-in-columns.md.

Shapes: B rows.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import compress
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.online.reader import Columns, FeatureReader
from features.spec import FeatureSpec
from runtime.compute import batched, made_ahead, throughput_first
from runtime.outage import Outage, StoppedError, wait_for
from runtime.telemetry import StopSignal
from stream.events import Impression, TeacherRequest
from stream.log.request_columns import RequestColumns
from teacher_cache.backfill.backfill_report import BackfillReport, Counts, Tally
from teacher_cache.backfill.histories import Batch, Offsets, Tracked
from teacher_cache.cache.cache import LogitCache, LogitKey
from teacher_cache.domain.domain_map import MappedRows
from teacher_cache.domain.request_scorer import BATCH_ROWS, RequestScorer, ScoredPlaces

_AHEAD_BATCHES = 4
"""Batches that are read before their turn: a log is read some thousand rows at a time."""

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, Offsets], None]
"""Called with the rows done, and with what the history had been read up to then."""

_SAMPLED_ROWS = 4_096
"""Rows that a dry run scores, to tell how long the others take."""

_T = TypeVar("_T")


class Manner(NamedTuple):
    """How a backfill goes about it.

    `dry_run`: put nothing, and score no more than a sample. `missing_only`: leave out rows whose logits are there.
    `max_rows_per_second`: of the teacher; None: as fast as it goes.
    """

    dry_run: bool = False
    missing_only: bool = False
    max_rows_per_second: float | None = None


class Prepared(NamedTuple):
    """A batch that was read, and how many of its requests are `usable`; of those with one key the last, mapped."""

    batch: Batch
    usable: int
    rows: RequestColumns
    keys: list[LogitKey]
    mapped: MappedRows

    def at(self, is_wanted_B: NDArray[np.bool_]) -> "Prepared":
        """With those of its rows alone."""
        places = np.flatnonzero(is_wanted_B)
        return self._replace(
            rows=self.rows.at(places.tolist()),
            keys=list(compress(self.keys, is_wanted_B)),
            mapped=self.mapped.at(places),
        )


class _Scored(NamedTuple):
    """What the teacher said of a batch; `scored` is None of no rows, and of those beyond a dry run's sample."""

    prepared: Prepared
    scored: ScoredPlaces | None
    teacher_seconds: float


class BatchFiller:
    """Fills the cache with batches. `prepare` is the reader's thread's, `_put` the writer's, all else the teacher's.

    `tell`: whom to tell of the rows done, and who notes what is counted and how far the history is filled.
    """

    def __init__(
        self,
        scorer: RequestScorer,
        cache: LogitCache,
        manner: Manner,
        stop: StopSignal,
        tally: Tally,
        tell: tuple[Progress, Callable[[Counts, Offsets], None]],
    ) -> None:
        self._scorer, self._cache = scorer, cache
        self._manner, self._stop = manner, stop
        self._progress, self._note = tell
        self._redis = Outage("redis", "waiting for it, no row is lost")
        self._teacher = Outage("teacher", "the same call is made again, no row is lost")
        self.tally = tally
        self._teacher_rows = 0
        self._pending: Future[tuple[int, Offsets]] | None = None

    def prepare(self, batch: Batch) -> Prepared:
        """What can be done before the teacher is asked."""
        usable = batch.requests
        described = self._scorer.described(usable.spec_ids)
        if len(described) < usable.size:
            usable = usable.at(described)
        keys = self._cache.keys(usable.user_ids, usable.item_ids, usable.features)
        last_of = dict(zip(keys, range(usable.size), strict=True))
        rows = usable if len(last_of) == usable.size else usable.at(list(last_of.values()))
        return Prepared(batch, usable.size, rows, list(last_of), self._scorer.map_rows(rows.features))

    def fill_all(self, batches: Iterable[Prepared], writer: ThreadPoolExecutor) -> None:
        """Fill the cache with these batches; when this returns all of them are put."""
        for prepared in batches:
            if self._stop.is_set():
                raise StoppedError
            self._fill(prepared, writer)
            self.keep_pace()
        self._await_put()

    def _fill(self, prepared: Prepared, writer: ThreadPoolExecutor) -> None:
        """Score what of the batch is to be scored, and have it put when the last batch is put."""
        if self._manner.missing_only or self._manner.dry_run:
            self._await_put()  # a row of the last batch is not missing
            is_missing_B = ~self._look(prepared.keys)
            if self._manner.missing_only:
                prepared = prepared.at(is_missing_B)
        started = time.monotonic()
        score = partial(self._scorer.score_mapped, prepared.mapped, prepared.rows.impression_ids)
        scored = self._ask(prepared.rows.size, score)
        result = _Scored(prepared, scored, time.monotonic() - started)
        self._await_put()
        self._pending = writer.submit(self._put, result)

    def _await_put(self) -> None:
        """Wait until the last batch is put, and tell how far it is."""
        if self._pending is not None:
            self._progress(*self._pending.result())
            self._pending = None

    def keep_pace(self) -> None:
        """Wait as long as the rate asks for."""
        rate = self._manner.max_rows_per_second
        early = 0.0 if rate is None else self._teacher_rows / rate - self.tally.seconds
        if early > 0:
            self._stop.wait(early)

    def _put(self, result: _Scored) -> tuple[int, Offsets]:
        """Put a batch's logits, and note how far the history is filled; the rows read and where they end."""
        (batch, usable, _, keys, _), scored, already = result.prepared, result.scored, 0
        wanted = len(keys)
        if scored is not None:
            self.tally.scored(wanted, result.teacher_seconds)
            places = scored.places.tolist()
            if len(places) < wanted:
                self._look([keys[place] for place in sorted(set(range(wanted)).difference(places))])
                keys = [keys[place] for place in places]
            if not self._manner.dry_run:
                now_ms = time.time_ns() // 1_000_000
                already = self._until_redis(partial(self._cache.put, keys, scored.logit_BT, now_ms))
        left_out = batch.requests.size - usable
        self.tally.add(batch.requests.size, left_out, wanted, keys, scored, already)
        counts = self.tally.counts()
        if not self._manner.dry_run:
            self._until_redis(partial(self._note, counts, batch.reached))
        return counts.read, batch.reached

    def _look(self, keys: Sequence[LogitKey]) -> NDArray[np.bool_]:
        """Which of these have logits, which is counted."""
        found = self._until_redis(partial(self._cache.get, keys))
        had_B = np.asarray(np.isfinite(found.logit_BT).all(axis=1), np.bool_)
        self.tally.look(keys, had_B)
        return had_B

    def _until_redis(self, attempt: Callable[[], _T]) -> _T:
        """What `attempt` gives, once Redis answers."""
        return wait_for(attempt, self._redis, self._stop)

    def _ask(self, rows: int, score: Callable[[], _T]) -> _T | None:
        """What the teacher says; None of no rows, and of those beyond a dry run's sample."""
        if not rows or (self._manner.dry_run and self._teacher_rows >= _SAMPLED_ROWS):
            return None
        self._teacher_rows += rows
        return wait_for(score, self._teacher, self._stop)


def backfill(  # noqa: PLR0913 - the parts of a process, and by keyword how it goes
    history: Tracked,
    scorer: RequestScorer,
    cache: LogitCache,
    *,
    progress: Progress,
    batch_rows: int = BATCH_ROWS,
    manner: Manner = Manner(),  # noqa: B008 - immutable
    put: Callable[[Counts, Offsets], None] = lambda _counts, _reached: None,
    before: Counts = Counts(),  # noqa: B008 - immutable
    stop: StopSignal | None = None,
) -> BackfillReport:
    """Score a history in batches and put the logits; of rows with one key (`LogitCache.keys_of`) the last holds.

    After each batch that is in Redis `put` is called, in another thread, with what was counted and how far the history
    was read with that batch; counting goes on from `before`. While the teacher computes a batch the one before it is
    put, and the next `_AHEAD_BATCHES` are read and mapped: so many are in memory, and a 64-bit hash of each distinct
    row to count it. Waits while Redis or the teacher is away; StoppedError when `stop` is set then, or between two
    batches. Any error sets `stop`, so that no thread waits on.
    """
    rate = manner.max_rows_per_second
    if rate is not None:
        batch_rows = max(1, min(batch_rows, int(rate)))
    stop = stop or StopSignal()
    work = BatchFiller(scorer, cache, manner, stop, Tally(before), (progress, put))
    ahead = made_ahead(map(work.prepare, history.batches(batch_rows)), _AHEAD_BATCHES)
    with throughput_first(), ThreadPoolExecutor(1, thread_name_prefix="backfill-writer") as writer, closing(ahead):
        try:
            work.fill_all(ahead, writer)
        except BaseException:
            stop.set()
            raise
    counts = work.tally.counts()
    if counts.left_out:
        _LOG.warning("left out rows=%d of another feature spec, or that the teacher cannot score", counts.left_out)
    return counts.report(work.tally.seconds, scorer.defaulted_share)


def requests_of_impressions(
    impressions: Iterable[Impression], reader: FeatureReader, spec: FeatureSpec, batch_rows: int
) -> Iterator[TeacherRequest]:
    """Impressions as teacher requests with the entities' features of now, read in batches; in their order."""
    for batch in batched(impressions, batch_rows):
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
