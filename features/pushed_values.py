"""What a push takes its values from: running aggregates, or profiles."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from features.ids import Entity, EntityId


class PushedValues(Protocol):
    """Absolute values of entities, for the push sources of their tables."""

    def has(self, entity: Entity, entity_id: EntityId) -> bool:
        """Whether there is something to know of an entity; one without has no row in the online store."""
        ...

    def rows(
        self, push_source: str, entity: Entity, ids: Iterable[EntityId]
    ) -> Mapping[str, Sequence[float | Sequence[float]]]:
        """One list per column of the push source, with a number or a list of numbers for each of `ids`."""
        ...
