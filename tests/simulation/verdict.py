"""What must hold at the end of every run, by a reference that knows what was sent and reads what was written.

Nothing here uses the join, the watermark or the state log. A label must be that of exactly the feedback that is no dead
letter, and every dead letter must be one that the contract allows.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kafka import TopicPartition

from stream.groups import STREAM_GROUP, group_id
from tests.simulation.log import Record
from tests.simulation.schedule import WINDOW_MS
from tests.simulation.world import INPUTS, TOPICS, Rows, World
from tests.stream.pair import SPEC, TASKS

LONGEST_MS = max(WINDOW_MS.values())
Place = tuple[str, int, int]


class Event(NamedTuple):
    """A sound event of an input: where it stands, and since when it can be read."""

    place: Place
    fields: dict[str, Any]
    visible_ms: float
    reached_ms: int
    """How far it may move event time: not past the broker's clock when it came."""

    @property
    def at_ms(self) -> int:
        """Its event time."""
        return int(self.fields["event_time_ms"])


class Letter(NamedTuple):
    """A dead letter."""

    code: str
    value: bytes | None
    size: int


def faults_of(world: World) -> list[str]:
    """Everything that must hold and does not, in words; empty after a good run."""
    if world.error:
        return [world.error]
    return list(Verdict(world).faults())


class Verdict:
    """One run's inputs and outputs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._patience_ms = LONGEST_MS + world.config.idle_seconds * 1000
        self._dedup_ms = round(world.config.dedup_seconds * 1000)
        self._ahead_ms = round(world.config.max_ahead_seconds * 1000)
        back_ms = [trouble.by_ms for trouble in world.schedule.troubles if trouble.kind == "clock"]
        self._clock_back_ms = -sum(by_ms for by_ms in back_ms if by_ms < 0)
        self._letters, self._twice = self._dead_letters()
        self._invalid: set[Place] = set()
        self._ahead: set[Place] = set()
        self._values: dict[Place, bytes | None] = {}
        self._impressions: dict[str, list[Event]] = defaultdict(list)
        self._feedback: dict[str, list[Event]] = defaultdict(list)
        self._events: dict[TopicPartition, list[Event]] = defaultdict(list)
        for at, record in self._read(*INPUTS):
            self._sort(at, record)
        self._examples = [json.loads(record.value or b"") for _, record in self._read(TOPICS.examples)]

    def faults(self) -> Iterator[str]:
        """Every fault."""
        yield from self._once()
        yield from self._letters_allowed()
        for impression_id in {**self._impressions, **self._feedback}:
            yield from self._outcome(impression_id)
        yield from self._examples_whole()
        yield from self._together()
        yield from self._pushed()

    def _read(self, *names: str) -> Iterator[tuple[TopicPartition, Record]]:
        for name in names:
            for number in range(self._world.schedule.partitions):
                at = TopicPartition(name, number)
                yield from ((at, record) for record in self._world.broker.logs[at].committed())

    def _dead_letters(self) -> tuple[dict[Place, Letter], list[Place]]:
        letters: dict[Place, Letter] = {}
        twice = []
        for _, record in self._read(*(TOPICS.dead_letters(topic) for topic in INPUTS)):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            place = (
                headers["__streams.errors.topic"],
                int(headers["__streams.errors.partition"]),
                int(headers["__streams.errors.offset"]),
            )
            if place in letters:
                twice.append(place)
            letters[place] = Letter(
                headers["graft.errors.code"], record.value, int(headers.get("graft.errors.size", "-1"))
            )
        return letters, twice

    def _sort(self, at: TopicPartition, record: Record) -> None:
        place = (at.topic, at.partition, record.offset)
        sent = self._world.places[place]
        self._values[place] = sent.value
        if sent.invalid:
            self._invalid.add(place)
            return
        fields = json.loads(sent.value or b"")
        event_ms = fields["event_time_ms"]
        event = Event(place, fields, record.stable_ms, min(event_ms, record.appended_ms))
        is_ahead = event_ms - record.appended_ms > self._ahead_ms
        may_be_ahead = event_ms - record.appended_ms + self._clock_back_ms > self._ahead_ms
        if is_ahead or (may_be_ahead and self._code(place) == "ahead"):
            self._ahead.add(place)
            return
        self._events[at].append(event)
        events = self._feedback if "task" in fields else self._impressions
        events[fields["impression_id"]].append(event)

    def _code(self, place: Place) -> str:
        letter = self._letters.get(place)
        return letter.code if letter else ""

    def _once(self) -> Iterator[str]:
        """Nothing comes out twice, and nothing of an aborted transaction."""
        yield from (f"{place} is a dead letter twice" for place in self._twice)
        outputs = {name: Counter(e["impression_id"] for e in self._records(name)) for name in _OUTPUTS}
        for name, counts in outputs.items():
            yield from (f"{one} is in {name} {count} times" for one, count in counts.items() if count > 1)
            yield from (f"{one} is in {name}, but was never sent" for one in counts.keys() - self._impressions.keys())
        examples, requests = outputs.values()
        yield from (f"{one} is an example or a teacher request, but not both" for one in examples.keys() ^ requests)

    def _records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for _, record in self._read(name)]

    def _letters_allowed(self) -> Iterator[str]:
        """Every message that can be no event is a dead letter with its bytes, and no other one says so."""
        for places, code in ((self._invalid, "invalid"), (self._ahead, "ahead")):
            yield from (f"{place} is no dead letter, but {code}" for place in places if self._code(place) != code)
        for place, letter in self._letters.items():
            if place not in self._values:
                yield f"{place} is a dead letter, but cannot be read"
                continue
            value = self._values[place] or b""
            if letter.code in ("invalid", "ahead") and place not in self._invalid | self._ahead:
                yield f"{place} is a sound event, but {letter.code}: {value[:200]!r}"
            if (letter.size, letter.value) != (len(value), b"") and letter.value != self._values[place]:
                yield f"the dead letter of {place} has other bytes"

    def _outcome(self, impression_id: str) -> Iterator[str]:
        """One example of the sound impressions of an id, with the labels of its feedback; the rest is put aside."""
        shown, feedback = self._impressions[impression_id], self._feedback[impression_id]
        joined = [event for event in shown if not self._code(event.place)]
        for event in shown:
            if self._code(event.place) and not self._may_be_too_late(event):
                yield f"impression {event.place} {impression_id} is {self._code(event.place)}"
        found = [example for example in self._examples if example["impression_id"] == impression_id]
        if bool(joined) != bool(found):
            yield f"{impression_id}: {len(joined)} impressions were joined, {len(found)} examples came out"
        if not joined or not found:
            yield from (f"feedback {e.place} is lost" for e in feedback if self._code(e.place) != "no_impression")
            return
        labels: dict[str, Any] = {task.name: 0.0 if task.kind == "binary" else None for task in TASKS}
        newest: dict[str, tuple[int, float]] = {}
        for event in feedback:
            yield from self._put_aside(event, joined[0])
            held = event.at_ms, float(event.fields["value"])
            task = event.fields["task"]
            if not self._code(event.place) and held > newest.get(task, (-1, 0.0)):
                newest[task], labels[task] = held, held[1]
        if found[0]["labels"] != labels:
            yield f"{impression_id}: labels {found[0]['labels']}, not {labels}"

    def _put_aside(self, event: Event, impression: Event) -> Iterator[str]:
        """Whether this feedback may be, or may not be, the dead letter that it is."""
        code = self._code(event.place)
        is_within = 0 <= event.at_ms - impression.at_ms <= WINDOW_MS[event.fields["task"]]
        if not code:
            if not is_within:
                yield f"feedback {event.place} of {impression.fields['impression_id']} is outside its window, yet used"
        elif code == "outside_window":
            if is_within:
                yield f"feedback {event.place} is within its window, but {code}"
        elif code not in ("late", "no_impression"):
            yield f"feedback {event.place} is {code}"
        elif not self._may_be_late(event, impression):
            yield f"feedback {event.place} of {impression.fields['impression_id']} came in time, but is {code}"

    def _may_be_late(self, event: Event, impression: Event) -> bool:
        if abs(event.visible_ms - impression.visible_ms) >= self._patience_ms:
            return True  # in a pause its impression closed, or it expired, when one of the two had waited long enough
        closes_ms, expires_ms = impression.at_ms + LONGEST_MS, event.at_ms + LONGEST_MS
        return self._has_passed(closes_ms, before=event) or self._has_passed(expires_ms, before=impression)

    def _may_be_too_late(self, event: Event) -> bool:
        is_past = self._has_passed(event.at_ms + LONGEST_MS + self._dedup_ms, before=event)
        return self._code(event.place) == "too_late" and is_past

    def _has_passed(self, time_ms: int, *, before: Event) -> bool:
        """Whether event time may have passed `time_ms` when `before` was taken: both inputs have a later event."""
        topic, number, offset = before.place
        own, other = (self._events[TopicPartition(t, number)] for t in (topic, *(t for t in INPUTS if t != topic)))
        is_own = any(e.reached_ms > time_ms and e.place[2] < offset for e in own)
        return is_own and any(e.reached_ms > time_ms for e in other)

    def _examples_whole(self) -> Iterator[str]:
        """An example has its impression's fields and features."""
        for example in self._examples:
            for impression in self._impressions[example["impression_id"]]:
                fields = impression.fields
                features = [fields["user_id"], fields["item_id"], fields["context"]["hour"]]
                expected = {**fields, "features": features, "spec_id": SPEC.spec_id, "labels": example["labels"]}
                if example != expected:
                    yield f"an example is {example}, not {expected}"

    def _together(self) -> Iterator[str]:
        """Each transaction moves offsets and state together, forward; at the end both are at the end."""
        group = group_id(TOPICS, STREAM_GROUP)
        saved: dict[int, dict[TopicPartition, int]] = {}
        for at, log in self._world.broker.logs.items():
            for record in log.records if at.topic == TOPICS.join_state else ():
                if record.key == b"position" and record.transaction:
                    offsets = json.loads(record.value or b"")["offsets"]
                    places = {TopicPartition(topic, at.partition): offset for topic, offset in offsets.items()}
                    saved.setdefault(id(record.transaction), {}).update(places)
        reached: dict[TopicPartition, int] = defaultdict(int)
        for transaction in self._world.broker.committed:
            moved = {at: o.offset for at, o in transaction.offsets.get(group, {}).items()}
            if moved != saved.get(id(transaction), {}):
                yield f"a transaction moved offsets to {moved}, its state to {saved.get(id(transaction))}"
            yield from (f"{at} went back from {reached[at]} to {o}" for at, o in moved.items() if o < reached[at])
            reached.update(moved)
        last = {at: record.offset for at, record in self._read(*INPUTS)}
        yield from (f"{at}: offset {offset} was never taken" for at, offset in last.items() if reached[at] <= offset)

    def _pushed(self) -> Iterator[str]:
        """Each time when all was made good, the online store has the aggregates of all examples."""
        for examples, pushed in self._world.converged:
            expected = _aggregates_of(map(json.loads, examples))
            for entity in expected.keys() | pushed.keys():
                if pushed.get(entity) != expected.get(entity):
                    yield f"aggregates of {entity}: {pushed.get(entity)}, not {expected.get(entity)}"


def _aggregates_of(examples: Iterable[dict[str, Any]]) -> Rows:
    found: Rows = {}
    rated: dict[object, list[float]] = defaultdict(list)
    for example in examples:
        user = found.setdefault(("user", example["user_id"]), {"seen": 0.0, "liked": 0.0})
        user["seen"] += 1
        user["liked"] += example["labels"]["like"]
        item = found.setdefault(("item", example["item_id"]), {"shown": 0.0, "rated": 0.0})
        item["shown"] += 1
        if example["labels"]["rating"] is not None:
            rated[example["item_id"]].append(example["labels"]["rating"])
            item["rated"] = sum(rated[example["item_id"]]) / len(rated[example["item_id"]])
    return found


_OUTPUTS = (TOPICS.examples, TOPICS.teacher_requests)
