"""Checks whether the stream would take the events of a file that was copied as it is."""

from itertools import islice
from pathlib import Path

from features.repo.store import compile_spec
from graft.project import load_project
from runtime.errors import InvalidInputError
from stream.join.validation import Validator
from stream.replay.event_file import read_events

_EVENTS = 10_000  # more would take minutes of a long log; 'graft replay --dry-run' reads all


def note_of_copied(folder: Path, redis_url: str) -> str:
    """A note: how many of the first events of the project would become dead letters, and why; "" if none would."""
    project = load_project(folder)
    validator = Validator(compile_spec(project.repo, redis_url, project.features), project.tasks)
    read = unusable = 0
    first = ""
    for event in islice(read_events(project.event_file), _EVENTS):
        read += 1
        try:
            (validator.feedback if event.kind == "feedback" else validator.impression)(event.value)
        except InvalidInputError as error:
            unusable += 1
            first = first or f"line {event.number}: {error}"
    if not unusable:
        return ""
    return (
        f"{unusable:,} of the first {read:,} events would become dead letters, for the file was copied as it is: the "
        f"first is {first}; write such values otherwise, and look at all with 'graft replay FILE --dry-run'"
    )
