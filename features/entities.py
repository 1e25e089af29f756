"""The batch tables of a Feast repository, and the users and items that they know. Imports Feast."""

from datetime import datetime
from pathlib import Path

from features.batch_tables import BatchTables
from features.ids import EntityId
from features.spec import FeatureSpec
from features.store import view_sources


def batch_tables(repo: Path, redis_url: str, spec: FeatureSpec) -> BatchTables:
    """The batch tables of a repository."""
    tables = view_sources(repo, redis_url).tables.values()
    return BatchTables([(table.path, table.join_key, table.timestamp_field) for table in tables], spec)


def known_ids(
    repo: Path, redis_url: str, spec: FeatureSpec, until: datetime | None = None
) -> tuple[list[EntityId], list[EntityId]]:
    """The users and the items of the repository's batch tables; those of rows that begin after `until` are left out."""
    ids = batch_tables(repo, redis_url, spec).ids(until)
    return ids["user"], ids["item"]
