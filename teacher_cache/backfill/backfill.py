"""Fills the teacher cache from history: teacher requests, examples, or impressions with the features of now.

Idempotent: run it again after a failure. It may run beside the batch scorer; the last one to put a row's logits holds.

Three threads share the work, so that the teacher is not waited for: one reads and maps the next batches while the
teacher computes this one, whose results the third puts. See docs/decisions/027-backfill-in-columns.md.

Shapes: B rows.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Protocol

from features.online.reader import Columns, FeatureReader
from features.spec import FeatureSpec
from runtime.compute import batched, made_ahead, throughput_first
from runtime.telemetry import StopSignal
from stream.events import Impression, TeacherRequest
from teacher_cache.backfill.backfill_batches import BatchFiller, Manner, Progress
from teacher_cache.backfill.backfill_report import BackfillReport, Counts, Tally
from teacher_cache.backfill.histories import Batch, Offsets
from teacher_cache.cache.cache import LogitCache
from teacher_cache.domain.request_scorer import BATCH_ROWS, RequestScorer

_AHEAD_BATCHES = 4
"""Batches that are read before their turn: a log is read some thousand rows at a time."""

_LOG = logging.getLogger(__name__)


class Batches(Protocol):
    """What a backfill needs of a history: see `histories.Tracked`."""

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """So many requests at a time, the last as many as are left."""
        ...


def backfill(  # noqa: PLR0913 - the parts of a process, and by keyword how it goes
    history: Batches,
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
