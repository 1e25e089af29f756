"""The users and items in a project's batch tables, which are known before the first event. Imports Feast."""

from pathlib import Path

import pyarrow.parquet as pq

from features.redis_layout import EntityId
from features.spec import FeatureSpec
from features.store import view_sources


def known_ids(repo: Path, redis_url: str, spec: FeatureSpec) -> tuple[list[EntityId], list[EntityId]]:
    """The distinct usable user and item ids of the repository's batch tables, in order; a missing table has none."""
    tables = [table for table in view_sources(repo, redis_url).tables.values() if table.path.exists()]
    found: dict[str, set[EntityId]] = {spec.user_join_key: set(), spec.item_join_key: set()}
    for table in tables:
        if table.join_key in found:
            column = pq.read_table(table.path, columns=[table.join_key])[table.join_key]
            found[table.join_key].update(value for value in column.unique().to_pylist() if value not in (None, ""))
    users, items = (sorted(found[key], key=str) for key in (spec.user_join_key, spec.item_join_key))
    return users, items
