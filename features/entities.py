"""The batch tables of a Feast repository, and the users and items that they know. Imports Feast."""

from pathlib import Path

from features.batch_tables import BatchTables
from features.redis_layout import EntityId
from features.spec import FeatureSpec
from features.store import view_sources


def batch_tables(repo: Path, redis_url: str, spec: FeatureSpec) -> BatchTables:
    """The batch tables of a repository."""
    tables = view_sources(repo, redis_url).tables.values()
    return BatchTables([(table.path, table.join_key) for table in tables], spec)


def known_ids(repo: Path, redis_url: str, spec: FeatureSpec) -> tuple[list[EntityId], list[EntityId]]:
    """The users and the items of the repository's batch tables."""
    ids = batch_tables(repo, redis_url, spec).ids()
    return ids["user"], ids["item"]
