"""What must become of each message of a stream, by a reference that knows what was sent and reads what came out.

Nothing here uses the join, the watermark or the state log. A label must be that of exactly the feedback that is no dead
letter, and every dead letter must be one that the contract allows.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import loads
from typing import Any, Literal, NamedTuple

from stream.config import StreamConfig
from stream.tasks import TaskSpec

Place = tuple[str, int, int]
"""Topic, partition and offset of a message."""

Labels = Mapping[str, float | None]


class Rules:
    """What the contract says in numbers; times are in milliseconds.

    `clock_back_ms`: how far a process's clock may have been behind the broker's.
    """

    def __init__(self, config: StreamConfig, tasks: Sequence[TaskSpec], clock_back_ms: float = 0.0) -> None:
        self.window_ms = {task.name: round(task.window_seconds * 1000) for task in tasks}
        self.longest_ms = max(self.window_ms.values())
        self.without_feedback = {task.name: 0.0 if task.kind == "binary" else None for task in tasks}
        self.patience_ms = self.longest_ms + config.idle_seconds * 1000
        self.dedup_ms = round(config.dedup_seconds * 1000)
        self.ahead_ms = round(config.max_ahead_seconds * 1000)
        self.clock_back_ms = clock_back_ms


class Input(NamedTuple):
    """A message as it stands in an input topic; `is_invalid`: it can be no event, as whoever made it knows."""

    place: Place
    value: bytes | None
    is_invalid: bool
    appended_ms: float
    visible_ms: float
    """Since when it can be read, by a clock that never jumps."""


class Letter(NamedTuple):
    """A dead letter. `size` is that of a value which did not fit, else -1."""

    code: str
    value: bytes | None
    size: int


Kind = Literal["lost", "doubled", "unknown", "labels", "dead letter"]


class Fault(NamedTuple):
    """What must hold and does not; its text is for people."""

    kind: Kind
    text: str


class Event(NamedTuple):
    """A sound event of an input; `task` and `value` are a feedback's."""

    place: Place
    impression_id: str
    at_ms: int
    visible_ms: float
    task: str | None
    value: float


class Outcomes:
    """The messages of the two `inputs` (impressions, feedback), and what they became.

    `messages` come in the order of their offsets in each partition. `examples` are the labels of each example by its
    impression's id, in any order; `requests` counts the teacher requests. `left_out`: the impressions that sampling
    leaves out if they are negatives.
    """

    def __init__(
        self,
        rules: Rules,
        inputs: tuple[str, str],
        messages: Iterable[Input],
        letters: Iterable[tuple[Place, Letter]],
        examples: Iterable[tuple[str, Labels]],
        requests: Iterable[str],
        left_out: Iterable[str] = (),
    ) -> None:
        self.rules = rules
        self._inputs = inputs
        self.letters: dict[Place, Letter] = {}
        self._letters_twice: list[Place] = []
        for place, letter in letters:
            if place in self.letters:
                self._letters_twice.append(place)
            self.letters[place] = letter
        self._invalid: set[Place] = set()
        self._ahead: set[Place] = set()
        self._values: dict[Place, bytes | None] = {}
        self.impressions: dict[str, list[Event]] = defaultdict(list)
        self._feedback: dict[str, list[Event]] = defaultdict(list)
        self._reached: dict[tuple[str, int], _Reached] = defaultdict(_Reached)
        for message in messages:
            self._sort(message)
        self._examples: dict[str, list[Labels]] = defaultdict(list)
        for impression_id, labels in examples:
            self._examples[impression_id].append(labels)
        self._requests = Counter(requests)
        self._left_out = set(left_out) - self._examples.keys()
        self.alone: set[str] = set()
        """The impressions beside which no negative is drawn where negatives are: sampling leaves them out."""

    def counts(self) -> dict[str, int]:
        """How many messages there are, and how many of them are each outcome; dead letters by their code."""
        letters = Counter(letter.code for letter in self.letters.values())
        shown = sum(map(len, self.impressions.values()))
        put_aside = sum(bool(self._code(e.place)) for events in self.impressions.values() for e in events)
        examples = len(self._examples)
        left_out = len(self.alone & self._requests.keys())
        feedback = [event for events in self._feedback.values() for event in events]
        return {
            "messages": len(self._values),
            "examples": examples,
            "labels": sum(not self._code(event.place) for event in feedback),
            "duplicates": shown - put_aside - examples - left_out,
            **{f"dead letters: {code}": count for code, count in sorted(letters.items())},
        }

    def late_within_window(self) -> int:
        """Feedback that is no label although its event time is within its window: it came after a pause, say."""
        late = 0
        for impression_id, events in self._feedback.items():
            joined = [shown for shown in self.impressions.get(impression_id, ()) if not self._code(shown.place)]
            late += sum(bool(self._code(e.place)) and self._is_within(e, joined[0]) for e in events if joined)
        return late

    def joined(self) -> list[list[str]]:
        """The impressions of each partition that were joined, in the order of their offsets."""
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for impression_id in self._requests:
            places = [e.place for e in self.impressions.get(impression_id, ()) if not self._code(e.place)]
            for _, partition, offset in places[:1]:
                found[partition].append((offset, impression_id))
        return [[impression_id for _, impression_id in sorted(of_it)] for of_it in found.values()]

    def labels(self, impression_id: str) -> dict[str, float | None]:
        """Of a joined impression: the newest value of each task's feedback is its label."""
        labels: dict[str, float | None] = dict(self.rules.without_feedback)
        newest: dict[str, tuple[int, float]] = {}
        for event in self._feedback.get(impression_id, ()):
            held, task = (event.at_ms, event.value), str(event.task)
            if not self._code(event.place) and held > newest.get(task, (-1, 0.0)):
                newest[task], labels[task] = held, event.value
        return labels

    def faults(self) -> Iterator[Fault]:
        """Everything that must hold and does not."""
        yield from self._once()
        yield from (Fault("dead letter", text) for text in self._letters_allowed())
        for impression_id in {**self.impressions, **self._feedback}:
            yield from self._outcome(impression_id)

    def _sort(self, message: Input) -> None:
        place = message.place
        self._values[place] = message.value
        if message.is_invalid:
            self._invalid.add(place)
            return
        fields: dict[str, Any] = loads(message.value or b"")
        event_ms = fields["event_time_ms"]
        is_ahead = event_ms - message.appended_ms > self.rules.ahead_ms
        may_be_ahead = event_ms - message.appended_ms + self.rules.clock_back_ms > self.rules.ahead_ms
        if is_ahead or (may_be_ahead and self._code(place) == "ahead"):
            self._ahead.add(place)
            return
        task, value = fields.get("task"), float(fields.get("value", 0.0))
        event = Event(place, fields["impression_id"], event_ms, message.visible_ms, task, value)
        self._reached[place[:2]].add(place[2], min(event_ms, message.appended_ms))  # not past the broker's clock
        (self._feedback if task else self.impressions)[event.impression_id].append(event)

    def _code(self, place: Place) -> str:
        letter = self.letters.get(place)
        return letter.code if letter else ""

    def _once(self) -> Iterator[Fault]:
        """Nothing comes out twice, and nothing that was never sent."""
        yield from (Fault("doubled", f"{place} is a dead letter twice") for place in self._letters_twice)
        examples = {impression_id: len(found) for impression_id, found in self._examples.items()}
        for name, counts in (("examples", examples), ("teacher-requests", self._requests)):
            for one, count in counts.items():
                if count > 1:
                    yield Fault("doubled", f"{one} is in {name} {count} times")
                if one not in self.impressions:
                    yield Fault("unknown", f"{one} is in {name}, but was never sent")
        for one in (examples.keys() | self._left_out | self.alone) ^ self._requests.keys():
            yield Fault("lost", f"{one} is an example or a teacher request, but not both")

    def _letters_allowed(self) -> Iterator[str]:
        """Every message that can be no event is a dead letter with its bytes, and no other one says so."""
        for places, code in ((self._invalid, "invalid"), (self._ahead, "ahead")):
            yield from (f"{place} is no dead letter, but {code}" for place in places if self._code(place) != code)
        for place, letter in self.letters.items():
            if place not in self._values:
                yield f"{place} is a dead letter, but cannot be read"
                continue
            value = self._values[place] or b""
            if letter.code in ("invalid", "ahead") and place not in self._invalid and place not in self._ahead:
                yield f"{place} is a sound event, but {letter.code}: {value[:200]!r}"
            if (letter.size, letter.value) != (len(value), b"") and letter.value != self._values[place]:
                yield f"the dead letter of {place} has other bytes"

    def _outcome(self, impression_id: str) -> Iterator[Fault]:
        """One example of the sound impressions of an id, with the labels of its feedback; the rest is put aside."""
        shown, feedback = self.impressions.get(impression_id, []), self._feedback.get(impression_id, [])
        joined = [event for event in shown if not self._code(event.place)]
        for event in shown:
            if self._code(event.place) and not self._may_be_too_late(event):
                yield Fault("lost", f"impression {event.place} {impression_id} is {self._code(event.place)}")
        is_left_out = impression_id in self._left_out or impression_id in self.alone
        found = self._examples.get(impression_id, [None] if is_left_out else [])
        if bool(joined) != bool(found):
            text = f"{impression_id}: {len(joined)} impressions were joined, {len(found)} examples came out"
            yield Fault("lost" if joined else "unknown", text)
        if joined and found:
            yield from self._labelled(impression_id, joined[0], feedback, found[0])
            return
        for event in feedback:
            if self._code(event.place) != "no_impression":
                yield Fault("lost", f"feedback {event.place} is lost")

    def _labelled(
        self, impression_id: str, impression: Event, feedback: Sequence[Event], found: Labels | None
    ) -> Iterator[Fault]:
        """The labels are those of the feedback; what was left out (None) has no 1 in any."""
        for event in feedback:
            yield from (Fault("labels", text) for text in self._put_aside(event, impression))
        labels = self.labels(impression_id)
        binary = (labels[task] for task, none in self.rules.without_feedback.items() if none == 0.0)
        if found is None and impression_id not in self.alone and any(binary):
            yield Fault("lost", f"{impression_id}: sampling left out a positive with the labels {labels}")
        if found not in (None, labels):
            yield Fault("labels", f"{impression_id}: labels {found}, not {labels}")

    def _put_aside(self, event: Event, impression: Event) -> Iterator[str]:
        """Whether this feedback may be, or may not be, the dead letter that it is."""
        code = self._code(event.place)
        is_within = self._is_within(event, impression)
        if not code:
            if not is_within:
                yield f"feedback {event.place} of {impression.impression_id} is outside its window, yet used"
        elif code == "outside_window":
            if is_within:
                yield f"feedback {event.place} is within its window, but {code}"
        elif code not in ("late", "no_impression"):
            yield f"feedback {event.place} is {code}"
        elif not self._may_be_late(event, impression):
            yield f"feedback {event.place} of {impression.impression_id} came in time, but is {code}"

    def _is_within(self, event: Event, impression: Event) -> bool:
        return 0 <= event.at_ms - impression.at_ms <= self.rules.window_ms[str(event.task)]

    def _may_be_late(self, event: Event, impression: Event) -> bool:
        if abs(event.visible_ms - impression.visible_ms) >= self.rules.patience_ms:
            return True  # in a pause its impression closed, or it expired, when one of the two had waited long enough
        closes_ms, expires_ms = impression.at_ms + self.rules.longest_ms, event.at_ms + self.rules.longest_ms
        return self._has_passed(closes_ms, before=event) or self._has_passed(expires_ms, before=impression)

    def _may_be_too_late(self, event: Event) -> bool:
        is_past = self._has_passed(event.at_ms + self.rules.longest_ms + self.rules.dedup_ms, before=event)
        return self._code(event.place) == "too_late" and is_past

    def _has_passed(self, time_ms: float, *, before: Event) -> bool:
        """Whether event time may have passed `time_ms` when `before` was taken: both inputs have a later event."""
        topic, number, offset = before.place
        other = self._inputs[topic == self._inputs[0]]
        return self._reached[topic, number].passes_at(time_ms) < offset and self._reached[other, number].has(time_ms)


class _Reached:
    """How far the events of one partition of an input reach, in the order of their offsets."""

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._newest_ms: list[float] = []

    def add(self, offset: int, reached_ms: float) -> None:
        """Only what comes further than all before it counts."""
        if not self._newest_ms or reached_ms > self._newest_ms[-1]:
            self._offsets.append(offset)
            self._newest_ms.append(reached_ms)

    def passes_at(self, time_ms: float) -> float:
        """The offset of the first event later than `time_ms`; infinite where there is none."""
        at = bisect_right(self._newest_ms, time_ms)
        return self._offsets[at] if at < len(self._offsets) else float("inf")

    def has(self, time_ms: float) -> bool:
        """Whether an event is later than `time_ms`."""
        return bool(self._newest_ms) and self._newest_ms[-1] > time_ms


def letter_of(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> tuple[Place, Letter]:
    """A dead letter by its own headers: where its message stood, and the letter."""
    found = {name: (data or b"").decode("utf-8", "replace") for name, data in headers}
    place = (
        found["__streams.errors.topic"],
        int(found["__streams.errors.partition"]),
        int(found["__streams.errors.offset"]),
    )
    return place, Letter(found["graft.errors.code"], value, int(found.get("graft.errors.size", "-1")))
