"""Fills the teacher cache from history: earlier teacher requests, or impressions with the features of now.

Idempotent: run it again after a failure. It may run beside the batch scorer; the last one to put a row's logits holds.
Unshown rows follow from the requests and their order alone: the same requests give the same rows, however often.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from features.lookup import FeatureReader
from features.spec import FeatureSpec
from stream.events import Impression, TeacherRequest
from teacher_cache.cache import LogitCache
from teacher_cache.request_scorer import BATCH_ROWS, RequestScorer, ScoredRows
from teacher_cache.unshown import UnshownScorer

Progress = Callable[[int, int | None], None]
"""Called with the rows done and their total, None when it is not known."""

_Row = TypeVar("_Row")
_LOG = logging.getLogger(__name__)


class BackfillReport(NamedTuple):
    """What a backfill put (with `dry_run`: would put) into the cache.

    `rows` are distinct by user and item. `defaulted_share` is of the teacher's inputs, `fallback_share` of the mapped
    values. `left_out` rows were written with another feature spec, or the teacher cannot score them. `unshown_rows`
    have items of other impressions; they are put beside the `rows`.
    """

    rows: int
    seconds: float
    defaulted_share: float
    fallback_share: float
    left_out: int
    unshown_rows: int


def backfill(
    requests: Iterable[TeacherRequest],
    scorer: RequestScorer,
    cache: LogitCache,
    unshown: UnshownScorer | None = None,
    *,
    progress: Progress,
    batch_rows: int = BATCH_ROWS,
    dry_run: bool = False,
) -> BackfillReport:
    """Score `requests` in batches and put their logits; of rows with the same user and item the last one holds.

    With `unshown`, other items for the user of each request are scored and put before its own logits.
    Memory holds one batch, and a 64-bit hash of each distinct row to count it. ServiceUnavailableError: Redis is away.
    """
    count = _Count()
    done = 0
    for batch in _batches(requests, batch_rows):
        usable = [request for request in batch if scorer.describes(request)]
        if unshown is not None:
            count.unshown_rows += _put_unshown(unshown, usable, dry_run=dry_run)
        rows = _last_of_equal_ids(usable)
        scored = scorer.score(rows)
        if scored is not None and not dry_run:
            cache.put(scored.user_ids, scored.item_ids, scored.logit_BT, time.time_ns() // 1_000_000)
        count.add(scored, left_out=len(batch) - len(usable) + len(rows) - (len(scored.user_ids) if scored else 0))
        done += len(batch)
        progress(done, None)
    if count.left_out:
        _LOG.warning("left out rows=%d of another feature spec, or that the teacher cannot score", count.left_out)
    return count.report(scorer.defaulted_share)


class _Count:
    """What has been scored so far."""

    def __init__(self) -> None:
        self.left_out = 0
        self.unshown_rows = 0
        self._started = time.monotonic()
        self._distinct: set[int] = set()
        self._rows = 0
        self._fallen_back = 0.0

    def add(self, scored: ScoredRows | None, left_out: int) -> None:
        self.left_out += left_out
        if scored is None:
            return
        ids = zip(scored.user_ids, scored.item_ids, strict=True)
        self._distinct.update(hash((str(user_id), str(item_id))) for user_id, item_id in ids)
        self._rows += len(scored.user_ids)
        self._fallen_back += scored.fallback_share * len(scored.user_ids)

    def report(self, defaulted_share: float) -> BackfillReport:
        fallback_share = self._fallen_back / max(1, self._rows)
        seconds = time.monotonic() - self._started
        return BackfillReport(
            len(self._distinct), seconds, defaulted_share, fallback_share, self.left_out, self.unshown_rows
        )


def _put_unshown(unshown: UnshownScorer, requests: Sequence[TeacherRequest], *, dry_run: bool) -> int:
    """Put the unshown rows of these requests unless `dry_run`; how many there are."""
    scored = unshown.score(unshown.sample(requests))
    if scored is None:
        return 0
    if not dry_run:
        unshown.put(scored)
    return len(scored.requests)


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
        for impression, features in zip(batch, spec.rows_of(columns), strict=True):
            yield TeacherRequest(**dict(impression), spec_id=spec.spec_id, features=features)


def _last_of_equal_ids(batch: Sequence[TeacherRequest]) -> list[TeacherRequest]:
    return list({(str(request.user_id), str(request.item_id)): request for request in batch}.values())


def _batches(rows: Iterable[_Row], batch_rows: int) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, batch_rows)):
        yield batch
