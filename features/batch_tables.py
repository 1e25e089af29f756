"""The users and items in a project's batch tables, which are known before the first event."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.ids import Entity, EntityId
from features.spec import FeatureSpec

_TIME = pa.timestamp("us", tz="UTC")


class BatchTables:
    """Parquet tables, each with its join key and the column of its times; they may change while a process runs.

    A missing table has no ids.
    """

    def __init__(self, tables: Iterable[tuple[Path, str, str]], spec: FeatureSpec) -> None:
        self._tables = list(tables)
        self._join_keys: dict[Entity, str] = {"user": spec.user_join_key, "item": spec.item_join_key}

    def stamp(self) -> tuple[int, ...]:
        """When each table was written: equal to an earlier stamp as long as no table was written since."""
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path, *_ in self._tables)

    def ids(self, until: datetime | None = None) -> dict[Entity, list[EntityId]]:
        """The distinct usable ids of users and items, in order.

        Rows that begin after `until` do not count: their ids were not known then. A time without a zone is UTC.
        """
        found: dict[str, set[EntityId]] = {join_key: set() for join_key in self._join_keys.values()}
        for path, join_key, timestamp_field in self._tables:
            if join_key in found and path.exists():
                rows = pq.read_table(path, columns=[join_key, timestamp_field])
                if until is not None:
                    rows = rows.filter(pc.less_equal(_utc(rows[timestamp_field]), pa.scalar(until, _TIME)))
                values = rows[join_key].unique().to_pylist()
                found[join_key].update(value for value in values if value not in (None, ""))
        return {entity: sorted(found[join_key], key=str) for entity, join_key in self._join_keys.items()}


def _utc(times: Any) -> Any:
    """A column of times in UTC, whatever its unit and zone."""
    return times.cast(_TIME) if times.type.tz else pc.assume_timezone(times.cast(pa.timestamp("us")), "UTC")
