"""Rows for tests: keys by ids alone, where features do not matter, and requests in memory as a history."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from features.spec import Value
from stream.events import EntityId, TeacherRequest
from stream.log.request_columns import RequestColumns, regrouped
from teacher_cache.backfill.histories import Batch
from teacher_cache.cache.cache import LogitCache, LogitKey


class IdRow(NamedTuple):
    """A row without features."""

    user_id: EntityId
    item_id: EntityId
    features: tuple[Value, ...] = ()


def keys(cache: LogitCache, user_ids: Iterable[EntityId], item_ids: Iterable[EntityId]) -> list[LogitKey]:
    """Where the cache keeps a row of each user with the item at the same place."""
    return cache.keys_of(IdRow(user_id, item_id) for user_id, item_id in zip(user_ids, item_ids, strict=True))


class Listed:
    """Requests of one partition, for a backfill."""

    def __init__(self, requests: Iterable[TeacherRequest]) -> None:
        self._requests = requests

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """See `teacher_cache.backfill.backfill.Batches`; read one by one."""
        placed = (RequestColumns.of([(0, n, request)]) for n, request in enumerate(self._requests))
        return (Batch(columns, columns.ends()) for columns in regrouped(placed, batch_rows))
