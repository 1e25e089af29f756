"""Fills the teacher cache from history: earlier teacher requests, or impressions with the features of now.

Idempotent: run it again after a failure. It may run beside the batch scorer; the last one to put a pair holds.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from features.spec import FeatureSpec, Value
from stream.events import ContextValue, EntityId, Impression, TeacherRequest
from teacher_cache.cache import LogitCache
from teacher_cache.request_scorer import RequestScorer

Progress = Callable[[int, int | None], None]
"""Called with the rows done and their total, None when it is not known."""

_Row = TypeVar("_Row")


class FeatureReader(Protocol):
    """What the backfill needs of features.reader.OnlineReader."""

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Mapping[str, Sequence[Value]]:
        """Raw values by feature name, as they are now."""


class BackfillReport(NamedTuple):
    """What a backfill put (with `dry_run`: would put) into the cache.

    `pairs` are distinct ones; `defaulted_share` is of the teacher's inputs, `fallback_share` of the mapped values.
    """

    pairs: int
    seconds: float
    defaulted_share: float
    fallback_share: float


def backfill(
    requests: Iterable[TeacherRequest],
    scorer: RequestScorer,
    cache: LogitCache,
    batch_rows: int,
    *,
    progress: Progress,
    total: int | None = None,
    dry_run: bool = False,
) -> BackfillReport:
    """Score `requests` in batches and put their logits; of a pair that comes again the last row holds.

    Memory holds one batch and a 64-bit hash of each pair, for their count. ServiceUnavailableError: Redis is away.
    """
    started = time.monotonic()
    pairs: set[int] = set()
    rows = done = 0
    fallen_back = 0.0
    for batch in _batches(requests, batch_rows):
        scored = scorer.score(_last_of_each_pair(batch))
        if scored is not None:
            if not dry_run:
                cache.put(scored.user_ids, scored.item_ids, scored.logit_BT, time.time_ns() // 1_000_000)
            pairs.update(hash((str(u), str(i))) for u, i in zip(scored.user_ids, scored.item_ids, strict=True))
            rows += len(scored.user_ids)
            fallen_back += scored.fallback_share * len(scored.user_ids)
        done += len(batch)
        progress(done, total)
    seconds = time.monotonic() - started
    return BackfillReport(len(pairs), seconds, scorer.defaulted_share, fallen_back / max(1, rows))


def requests_of_impressions(
    impressions: Iterable[Impression], reader: FeatureReader, spec: FeatureSpec, batch_rows: int
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


def _last_of_each_pair(batch: Sequence[TeacherRequest]) -> list[TeacherRequest]:
    return list({(str(request.user_id), str(request.item_id)): request for request in batch}.values())


def _batches(rows: Iterable[_Row], batch_rows: int) -> Iterator[list[_Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, batch_rows)):
        yield batch
