"""What an event file will send: the ids of its valid impressions, and the users and items that it knows."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lab.dev.sample import Sample
from runtime.errors import InvalidInputError
from stream.events import ContextValue, EntityId
from stream.replay import event_file

_PROGRESS_IMPRESSIONS = 5_000


class EventFile(NamedTuple):
    """`events` counts all rows; `impression_ids` are the distinct ids of valid impressions."""

    events: int
    impression_ids: frozenset[str]
    contexts: dict[EntityId, dict[str, ContextValue]]
    """User -> the context of their last impression."""
    items: list[EntityId]

    @property
    def sample(self) -> Sample:
        """What the client asks for."""
        return Sample(self.contexts, self.items, impression_bytes=0.0)


def read_events(path: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> EventFile:
    """Read an event file; `progress` gets the events read and all there are. A bad row counts as an event only.

    InvalidInputError when no row is a valid impression.
    """
    ids: dict[str, None] = {}
    contexts: dict[EntityId, dict[str, ContextValue]] = {}
    items: dict[EntityId, None] = {}
    events = event_file.count_events(path)
    for number, impression in enumerate(event_file.impressions_of(path)):
        ids[impression.impression_id] = items[impression.item_id] = None
        contexts[impression.user_id] = impression.context
        if number % _PROGRESS_IMPRESSIONS == 0:
            progress(number, events)
    if not ids:
        raise InvalidInputError(f"{path}: must hold at least one valid impression, found none in {events:,} events")
    progress(events, events)
    return EventFile(events, frozenset(ids), contexts, list(items))
