"""The impression-feedback join of one partition: pure, without Kafka and without a clock.

Life of an impression: pending until event time passes its longest attribution window, then one example; its id is
remembered for the dedup horizon. Feedback that comes before its impression waits for it as an orphan.

Event time is moved by events alone. In a pause, when both inputs have nothing more, the wall clock closes what has
waited here for its longest window and a margin: an example does not wait for the next event. That leaves event time
where it is, so an impression that comes after the pause has its whole window.

A long pause, or a jump of event time, may be the end of millions at once. A step ends a bounded number of them; the
rest, and the next message, wait for the steps after it.
"""

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

from pydantic import TypeAdapter

from stream.events import Example, Feedback, TeacherRequest
from stream.join.log_cleaner import Entry
from stream.join.remembered import RememberedIds
from stream.join.sampling import place_among
from stream.kafka.dead_letters import DeadLetter
from stream.messages import Message
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
    """The negatives that were drawn beside it: see stream/join/sampling.py."""

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


MAX_WAITING_BYTES = 256 * 1024
"""Of the feedback that waits for one impression: what is saved of it is one entry, written anew at each change."""

MOST_ENDED = 1_000
"""Impressions closed, feedback expired and segments of ids forgotten in one step: below 0.1 s of work."""


@dataclass
class Joined:
    """What came out of the join since the last `drain`, each list in its order."""

    requests: list[TeacherRequest] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    duplicates: int = 0
    alone: set[str] = field(default_factory=set)
    """The examples beside which nothing was drawn, by id."""


class Join:
    """One partition's join; `changes()` gives its state as small records, `restore` takes them back."""

    def __init__(self, tasks: Sequence[TaskSpec], dedup_seconds: float, idle_seconds: float = 0.0) -> None:
        self._tasks = tuple(tasks)
        self._window_ms = {task.name: round(task.window_seconds * 1000) for task in tasks}
        self._longest_ms = max(self._window_ms.values())
        self._dedup_ms = round(dedup_seconds * 1000)
        self._patience_ms = self._longest_ms + idle_seconds * 1000
        self._now_ms = 0.0
        self._pending: dict[str, Pending] = {}
        self._closed = RememberedIds()
        self._orphans_since_ms: dict[str, float] = {}
        self._orphans: dict[str, list[tuple[int, Message]]] = {}
        self._closing: list[tuple[int, str]] = []
        self._expiring: list[tuple[int, str]] = []
        self._dirty: dict[str, None] = {}
        self._watermark_ms = -1
        self._left = MOST_ENDED
        self._out = Joined()

    def __len__(self) -> int:
        """Pending impressions."""
        return len(self._pending)

    def knows(self, impression_id: str) -> bool:
        """Whether an impression of this id would be a duplicate."""
        return impression_id in self._pending or impression_id in self._closed

    @property
    def is_exhausted(self) -> bool:
        """Whether this step has ended as much as one may: no message may be joined before the next one."""
        return self._left <= 0

    def drain(self) -> Joined:
        """What came out since the last call; the next step begins."""
        out, self._out = self._out, Joined()
        self._left = MOST_ENDED
        return out

    def impression(self, request: TeacherRequest, message: Message) -> bool:
        """Take an impression with its features, and the orphans that waited for it; whether it was taken.

        One that is too late to be told from a duplicate is a dead letter; any other late one still becomes an example.
        """
        impression_id = request.impression_id
        if self.knows(impression_id):
            self._out.duplicates += 1
            return False
        close_ms = request.event_time_ms + self._longest_ms
        if close_ms + self._dedup_ms < self._watermark_ms:
            reason = (
                f"event_time_ms: {request.event_time_ms} is more than stream.dedup_seconds and the longest window "
                f"before the event time reached, {self._watermark_ms}: it cannot be told from a duplicate"
            )
            self._out.dead_letters.append(DeadLetter(message, "too_late", reason))
            return False
        self._pending[impression_id] = Pending(request, close_ms, self._now_ms)
        heapq.heappush(self._closing, (close_ms, impression_id))
        self._dirty[f"impression:{impression_id}"] = None
        self._out.requests.append(request)
        self._orphans_since_ms.pop(impression_id, None)
        for _, orphan in self._orphans.pop(impression_id, ()):
            self._dirty[f"orphans:{impression_id}"] = None
            self.feedback(Feedback.model_validate_json(orphan.value or b""), orphan)
        return True

    def beside(self, impression_id: str, drawn: list[Example]) -> None:
        """Let negatives that were drawn for an impression wait with it, until it closes."""
        self._pending[impression_id].drawn = drawn
        self._dirty[f"drawn:{impression_id}"] = None

    def feedback(self, feedback: Feedback, message: Message) -> None:
        """Take valid feedback: the last value by event time within its task's window holds (the greater of equals)."""
        if feedback.task not in self._window_ms:
            reason = f"task: {feedback.task} was removed from the project while the feedback waited for its impression"
            self._out.dead_letters.append(DeadLetter(message, "removed_task", reason))
            return
        pending = self._pending.get(feedback.impression_id)
        if pending is None:
            self._feedback_alone(feedback, message)
            return
        after_ms = feedback.event_time_ms - pending.request.event_time_ms
        if not 0 <= after_ms <= self._window_ms[feedback.task]:
            reason = (
                f"event_time_ms: feedback of task {feedback.task} must come 0 to {self._window_ms[feedback.task]} ms "
                f"after its impression, got {after_ms} ms"
            )
            self._out.dead_letters.append(DeadLetter(message, "outside_window", reason))
            return
        value = (feedback.event_time_ms, float(feedback.value))
        if value > pending.labels.get(feedback.task, (-1, 0.0)):
            pending.labels[feedback.task] = value
            self._dirty[f"labels:{feedback.impression_id}"] = None

    def advance(self, watermark_ms: int | None) -> None:
        """Let event time reach `watermark_ms`: close impressions in the order of (close time, id), expire orphans.

        Where that is more than a step may end, `is_exhausted` says so, and the next calls go on.
        """
        if watermark_ms is None or watermark_ms <= self._watermark_ms:
            watermark_ms = self._watermark_ms
        self._watermark_ms = watermark_ms
        while self._closing and self._closing[0][0] < watermark_ms and not self.is_exhausted:
            close_ms, impression_id = heapq.heappop(self._closing)
            if impression_id in self._pending and self._pending[impression_id].close_ms == close_ms:  # else: in a pause
                self._close(impression_id)
        while self._expiring and self._expiring[0][0] < watermark_ms and not self.is_exhausted:
            self._expire(*heapq.heappop(self._expiring))
        self._left -= self._closed.forget(watermark_ms, self._left)

    def tick(self, now_ms: float, *, is_pause: bool) -> None:
        """Let a clock reach `now_ms`, of which only differences count; it begins anew with each process.

        In a pause (all that the inputs have was taken) close the impressions that were taken so long ago, in the order
        of (close time, id), and expire the orphans: those that have waited longest, up to what a step may end.
        """
        self._now_ms = now_ms
        if not is_pause:
            return
        pending = takewhile(lambda kv: self._is_due(kv[1].since_ms), self._pending.items())
        for _, impression_id in sorted((p.close_ms, i) for i, p in islice(pending, max(0, self._left))):
            self._close(impression_id)
        orphans = takewhile(lambda kv: self._is_due(kv[1]), self._orphans_since_ms.items())
        for impression_id, _ in list(islice(orphans, max(0, self._left))):
            self._expire(max(at for at, _ in self._orphans[impression_id]), impression_id)

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call."""
        changed = [(key, self.entry(key)) for key in self._dirty]
        self._dirty.clear()
        return [*changed, *self._closed.changes()]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry as of the last `changes()`; None when it is gone."""
        kind, _, impression_id = key.partition(":")
        if kind == "orphans":
            orphans = self._orphans.get(impression_id)
            return json.dumps([(at, m.to_json()) for at, m in orphans]).encode() if orphans else None
        if kind in SAVED:
            pending = self._pending.get(impression_id)
            return pending.entry(kind) if pending else None
        return self._closed.entry(key)

    def restore(self, entries: Mapping[str, bytes], watermark_ms: int | None) -> None:
        """Take back the entries that all `changes()` in their order add up to."""
        self._pending = restored(entries, self._longest_ms, self._now_ms)
        for key, value in entries.items():
            kind, _, impression_id = key.partition(":")
            if kind == "orphans":
                self._orphans[impression_id] = [(at, Message.from_json(m)) for at, m in json.loads(value)]
                self._orphans_since_ms[impression_id] = self._now_ms
        self._closing = _heap((p.close_ms, i) for i, p in self._pending.items())
        self._expiring = _heap((at, i) for i, orphans in self._orphans.items() for at, _ in orphans)
        self._watermark_ms = -1 if watermark_ms is None else watermark_ms
        self._closed.restore(entries, self._watermark_ms)

    def _feedback_alone(self, feedback: Feedback, message: Message) -> None:
        impression_id = feedback.impression_id
        if impression_id in self._closed:
            reason = f"impression_id: {impression_id} is closed: the feedback came after its longest window had passed"
            self._out.dead_letters.append(DeadLetter(message, "late", reason))
            return
        waiting = self._orphans.get(impression_id, [])
        if sum(_size(one) for _, one in waiting) + _size(message) > MAX_WAITING_BYTES:
            reason = (
                f"impression_id: no impression {impression_id} came, and {len(waiting)} feedback messages wait for it; "
                f"at most {MAX_WAITING_BYTES} bytes of them are kept"
            )
            self._out.dead_letters.append(DeadLetter(message, "no_impression", reason))
            return
        expire_ms = feedback.event_time_ms + self._longest_ms
        self._orphans.setdefault(impression_id, []).append((expire_ms, message))
        self._orphans_since_ms.pop(impression_id, None)  # so that they stand in the order of their times
        self._orphans_since_ms[impression_id] = self._now_ms  # the newest: each of them has its whole wait
        heapq.heappush(self._expiring, (expire_ms, impression_id))
        self._dirty[f"orphans:{impression_id}"] = None

    def _is_due(self, since_ms: float) -> bool:
        return since_ms + self._patience_ms <= self._now_ms

    def _close(self, impression_id: str) -> None:
        pending = self._pending.pop(impression_id)
        examples = pending.examples(self._tasks)
        self._left -= len(examples)
        self._closed.add(impression_id, pending.close_ms + self._dedup_ms)
        self._out.examples += examples
        if not pending.drawn:
            self._out.alone.add(impression_id)
        self._dirty |= {f"{kind}:{impression_id}": None for kind in pending.saved_kinds()}

    def _expire(self, expire_ms: int, impression_id: str) -> None:
        orphans = self._orphans.get(impression_id, [])
        expired = [message for at, message in orphans if at <= expire_ms]
        if not expired:
            return  # its impression came
        self._left -= len(expired)
        reason = f"impression_id: no impression {impression_id} came while one could still have the feedback"
        self._out.dead_letters += [DeadLetter(message, "no_impression", reason) for message in expired]
        self._orphans[impression_id] = [(at, message) for at, message in orphans if at > expire_ms]
        if not self._orphans[impression_id]:
            del self._orphans[impression_id], self._orphans_since_ms[impression_id]
        self._dirty[f"orphans:{impression_id}"] = None


def _size(message: Message) -> int:
    """Bytes of key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers


def _heap(items: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    heap = list(items)
    heapq.heapify(heap)
    return heap
