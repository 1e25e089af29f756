"""What an event file will send: the ids of its valid impressions, and the users and items that it knows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from runtime.errors import InvalidInputError
from stream.events import ContextValue, EntityId, Impression

_PROGRESS_LINES = 5_000


class EventFile(NamedTuple):
    """`events` counts all lines; `impression_ids` are the distinct ids of valid impressions."""

    events: int
    impression_ids: frozenset[str]
    contexts: dict[EntityId, dict[str, ContextValue]]
    """User -> the context of their last impression."""
    items: list[EntityId]


def read_events(path: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> EventFile:
    """Read a JSONL event file; `progress` is told bytes done and in all. Bad lines count as events only.

    InvalidInputError when no line is a valid impression.
    """
    ids: dict[str, None] = {}
    contexts: dict[EntityId, dict[str, ContextValue]] = {}
    items: dict[EntityId, None] = {}
    events, done, total = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        for line in file:
            events, done = events + 1, done + len(line)
            impression = _impression(line)
            if impression is not None:
                ids[impression.impression_id] = items[impression.item_id] = None
                contexts[impression.user_id] = impression.context
            if events % _PROGRESS_LINES == 0:
                progress(done, total)
    if not ids:
        raise InvalidInputError(f"{path}: must hold at least one valid impression, found none in {events:,} lines")
    progress(total, total)
    return EventFile(events, frozenset(ids), contexts, list(items))


def _impression(line: bytes) -> Impression | None:
    """The line's impression; None for feedback and for what the stream will refuse."""
    try:
        event = json.loads(line)
        if not isinstance(event, dict) or event.pop("type", None) != "impression":
            return None
        return Impression.model_validate(event)
    except (ValueError, ValidationError):
        return None
