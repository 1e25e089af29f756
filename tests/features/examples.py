"""Closed examples, counted for both of their entities."""

from collections.abc import Mapping

from features.aggregates import Aggregates
from features.spec import EntityId


def count_example(
    aggregates: Aggregates,
    user_id: EntityId,
    item_id: EntityId,
    labels: Mapping[str, float | None],
    event_time_ms: int,
) -> None:
    """Add it to its user and its item, as far as these have aggregates."""
    for entity in aggregates.entities:
        aggregates.add(entity, user_id if entity == "user" else item_id, labels, event_time_ms)
