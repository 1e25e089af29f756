"""Reads the beginning of an event file: users and items to ask scores for, and whether its events can be used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from features.spec import FeatureSpec
from runtime.errors import InvalidInputError
from stream.events import ContextValue, EntityId, Impression
from stream.join.validation import Validator
from stream.replay.event_file import read_events
from stream.tasks import TaskSpec

LOOKED_AT = 10_000


class Sample(NamedTuple):
    """Of the impressions at a file's beginning: each user with the last context, the items, the mean size."""

    contexts: Mapping[EntityId, Mapping[str, ContextValue]]
    items: Sequence[EntityId]
    impression_bytes: float


def sample_of(path: Path, spec: FeatureSpec, tasks: Sequence[TaskSpec], max_unusable_share: float) -> Sample:
    """The sample of the first events; InvalidInputError with the first fault when a larger share is unusable."""
    validator, contexts = Validator(spec, tasks), dict[EntityId, Mapping[str, ContextValue]]()
    items, faults, found = Counter[EntityId](), list[str](), 0
    size = looked_at = 0
    for event in islice(read_events(path), LOOKED_AT):
        looked_at += 1
        try:
            read = validator.feedback(event.value) if event.kind == "feedback" else validator.impression(event.value)
        except InvalidInputError as error:
            faults.append(f"line {event.number}: {error}")
            continue
        if isinstance(read, Impression):
            found, size = found + 1, size + len(event.value)
            contexts[read.user_id] = read.context
            items[read.item_id] += 1
    if not looked_at:
        raise InvalidInputError(f"{path}: there are no events in it")
    if not found or len(faults) > max_unusable_share * looked_at:
        first = f"; {faults[0]}" if faults else ""
        raise InvalidInputError(
            f"{path}: of the first {looked_at:,} events {len(faults):,} cannot be used and {found:,} are impressions, "
            f"so nothing could be learnt{first}; 'graft replay FILE --dry-run' tells of all events"
        )
    return Sample(contexts, [item for item, _ in items.most_common()], size / found)


def write_first(path: Path, to: Path, count: int = LOOKED_AT) -> None:
    """The first impressions as an event file of their own, for a command that reads all of its file."""
    shown = (event for event in read_events(path) if event.kind == "impression")
    with to.open("wb") as file:
        for event in islice(shown, count):
            file.write(b'{"type": "impression", ' + event.value.removeprefix(b"{") + b"\n")
