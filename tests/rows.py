"""Keys of rows by their ids, for tests of caches in which features do not matter."""

from collections.abc import Iterable
from typing import NamedTuple

from features.spec import Value
from stream.events import EntityId
from teacher_cache.cache import LogitCache, LogitKey


class IdRow(NamedTuple):
    """A row without features."""

    user_id: EntityId
    item_id: EntityId
    features: tuple[Value, ...] = ()


def keys(cache: LogitCache, user_ids: Iterable[EntityId], item_ids: Iterable[EntityId]) -> list[LogitKey]:
    """Where the cache keeps a row of each user with the item at the same place."""
    return cache.keys_of(IdRow(user_id, item_id) for user_id, item_id in zip(user_ids, item_ids, strict=True))
