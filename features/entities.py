"""The users and items in a project's batch tables, which are known before the first event. Imports Feast."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.redis_layout import EntityId
from features.spec import FeatureSpec
from features.store import view_sources

_TIME = pa.timestamp("us", tz="UTC")


def known_ids(
    repo: Path, redis_url: str, spec: FeatureSpec, until: datetime | None = None
) -> tuple[list[EntityId], list[EntityId]]:
    """The distinct usable user and item ids of the repository's batch tables, in order; a missing table has none.

    Rows that begin after `until` do not count: their ids were not known then. A time without a zone is UTC.
    """
    tables = [table for table in view_sources(repo, redis_url).tables.values() if table.path.exists()]
    found: dict[str, set[EntityId]] = {spec.user_join_key: set(), spec.item_join_key: set()}
    for table in tables:
        if table.join_key in found:
            rows = pq.read_table(table.path, columns=[table.join_key, table.timestamp_field])
            if until is not None:
                rows = rows.filter(pc.less_equal(_utc(rows[table.timestamp_field]), pa.scalar(until, _TIME)))
            column = rows[table.join_key]
            found[table.join_key].update(value for value in column.unique().to_pylist() if value not in (None, ""))
    users, items = (sorted(found[key], key=str) for key in (spec.user_join_key, spec.item_join_key))
    return users, items


def _utc(times: Any) -> Any:
    """A column of times in UTC, whatever its unit and zone."""
    return times.cast(_TIME) if times.type.tz else pc.assume_timezone(times.cast(pa.timestamp("us")), "UTC")
