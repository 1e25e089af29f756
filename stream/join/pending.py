"""An impression that waits for its feedback, the examples that it becomes, and the entries that save it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from stream.events import Example, TeacherRequest
from stream.join.drawn import place_among
from stream.tasks import TaskSpec

SAVED = ("impression", "labels", "drawn")
"""The kinds of its entries; the key of each is the kind, a colon and the impression's id."""

_EXAMPLES = TypeAdapter(list[Example])


@dataclass
class Pending:
    """An impression that waits for feedback: per task the time and value that hold so far."""

    request: TeacherRequest
    close_ms: int
    since_ms: float
    """When it was taken, by the clock of `Join.tick`."""
    labels: dict[str, tuple[int, float]] = field(default_factory=dict)
    drawn: list[Example] = field(default_factory=list)
    """The negatives that were drawn beside it: see stream/join/drawn.py."""

    def examples(self, tasks: Sequence[TaskSpec]) -> list[Example]:
        """Its example with the labels that hold; where a binary task has the label 1, somewhere among its drawn rows.

        A learner that goes row by row must not find the positive one always first: the row after a yes would be a no.
        """
        labels: dict[str, float | None] = {}
        for task in tasks:
            held = self.labels.get(task.name)
            labels[task.name] = held[1] if held else (0.0 if task.kind == "binary" else None)
        example = Example.of_checked({**self.request.__dict__, "labels": labels, "weight": 1, "sampled": None})
        if not self.drawn:
            return [example]
        is_positive = any(labels[task.name] for task in tasks if task.kind == "binary")
        if not is_positive:
            return [example]
        place = place_among(len(self.drawn), self.request.impression_id)
        return [*self.drawn[:place], example, *self.drawn[place:]]

    def entry(self, kind: str) -> bytes | None:
        """The value of one of its entries; None where there is nothing to save."""
        if kind == "impression":
            return self.request.model_dump_json().encode()
        if kind == "labels":
            return json.dumps(self.labels).encode() if self.labels else None
        return _EXAMPLES.dump_json(self.drawn) if self.drawn else None

    def saved_kinds(self) -> list[str]:
        """The kinds of the entries that it has."""
        return ["impression", *(kind for kind in ("labels", "drawn") if getattr(self, kind))]


def restored(entries: Mapping[str, bytes], longest_ms: int, now_ms: float) -> dict[str, Pending]:
    """The impressions that the entries save, by id."""
    found = {}
    for key, value in entries.items():
        kind, _, impression_id = key.partition(":")
        if kind == "impression":
            request = TeacherRequest.model_validate_json(value)
            labels = json.loads(entries.get(f"labels:{impression_id}", b"{}"))
            found[impression_id] = Pending(
                request,
                request.event_time_ms + longest_ms,
                now_ms,
                {task: (at, label) for task, (at, label) in labels.items()},
                _EXAMPLES.validate_json(entries.get(f"drawn:{impression_id}", b"[]")),
            )
    return found
