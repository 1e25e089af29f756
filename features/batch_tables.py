"""The users and items in a project's batch tables, which are known before the first event."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from features.pushed_values import Entity
from features.redis_layout import EntityId
from features.spec import FeatureSpec


class BatchTables:
    """Parquet tables and their join keys; they may change while a process runs. A missing table has no ids."""

    def __init__(self, tables: Iterable[tuple[Path, str]], spec: FeatureSpec) -> None:
        self._tables = list(tables)
        self._join_keys: dict[Entity, str] = {"user": spec.user_join_key, "item": spec.item_join_key}

    def stamp(self) -> tuple[int, ...]:
        """When each table was written: equal to an earlier stamp as long as no table was written since."""
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path, _ in self._tables)

    def ids(self) -> dict[Entity, list[EntityId]]:
        """The distinct usable ids of users and items, in order."""
        found: dict[str, set[EntityId]] = {join_key: set() for join_key in self._join_keys.values()}
        for path, join_key in self._tables:
            if join_key in found and path.exists():
                column = pq.read_table(path, columns=[join_key])[join_key]
                found[join_key].update(value for value in column.unique().to_pylist() if value not in (None, ""))
        return {entity: sorted(found[join_key], key=str) for entity, join_key in self._join_keys.items()}
