"""What must hold at the end of every run, by a reference that knows what was sent and reads what was written.

Nothing here uses the join, the watermark or the state log: `tests.outcomes` says what must become of each message.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from math import isclose, log2
from typing import Any

from kafka import TopicPartition

from stream.join.partition import POSITION
from stream.join.sampling import SamplingConfig, is_drawn
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.process.state_log import unpacked
from tests.drawn_rows import Shown, alone_of, drawn_faults
from tests.outcomes import Input, Outcomes, Rules, letter_of
from tests.simulation.log import Record
from tests.simulation.schedule import KNOWN_IMPRESSIONS
from tests.simulation.world import INPUTS, TOPICS, Rows, World
from tests.stream.pair import SPEC, TASKS

_ENTITIES = ("user", "item")


def faults_of(world: World) -> list[str]:
    """Everything that must hold and does not, in words; empty after a good run."""
    if world.error:
        return [world.error]
    return list(Verdict(world).faults())


class Verdict:
    """One run's inputs and outputs."""

    def __init__(self, world: World) -> None:
        self._world = world
        back_ms = [trouble.by_ms for trouble in world.schedule.troubles if trouble.kind == "clock"]
        examples = self._records(TOPICS.examples)
        self._examples = [example for example in examples if "sampled" not in example]
        self._drawn = [example for example in examples if "sampled" in example]
        requests = self._records(TOPICS.teacher_requests)
        self._requested = [request["impression_id"] for request in requests]
        self._sampling = world.schedule.sampling
        self._outcomes = Outcomes(
            Rules(world.config, TASKS, clock_back_ms=-sum(by_ms for by_ms in back_ms if by_ms < 0)),
            INPUTS,
            (self._input(at, record) for at, record in self._read(*INPUTS)),
            (letter_of(r.headers, r.value) for _, r in self._read(*(TOPICS.dead_letters(topic) for topic in INPUTS))),
            ((example["impression_id"], example["labels"]) for example in self._examples),
            (name for name in self._requested if not name.startswith("drawn-")),
            (name for name in self._requested if not is_drawn(name, self._sampling.one_negative_of)),
        )
        items = {request["impression_id"]: request["item_id"] for request in requests}
        self._joined = [[Shown(name, items[name]) for name in of_it] for of_it in self._outcomes.joined()]
        self._outcomes.alone = alone_of(self._sampling, KNOWN_IMPRESSIONS, self._joined)

    def faults(self) -> Iterator[str]:
        """Every fault."""
        yield from (fault.text for fault in self._outcomes.faults())
        yield from self._examples_whole()
        if self._sampling.drawn_negatives:
            yield from self._drawn_right()
        yield from self._together()
        yield from self._pushed()

    def _read(self, *names: str) -> Iterator[tuple[TopicPartition, Record]]:
        for name in names:
            for number in range(self._world.schedule.partitions):
                at = TopicPartition(name, number)
                yield from ((at, record) for record in self._world.broker.logs[at].committed())

    def _records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for _, record in self._read(name)]

    def _input(self, at: TopicPartition, record: Record) -> Input:
        place = (at.topic, at.partition, record.offset)
        sent = self._world.places[place]
        return Input(place, sent.value, sent.invalid, record.appended_ms, record.stable_ms)

    def _examples_whole(self) -> Iterator[str]:
        """An example has its impression's fields and features."""
        for example in self._examples:
            for impression in self._outcomes.impressions[example["impression_id"]]:
                fields = json.loads(self._world.places[impression.place].value or b"")
                features = [fields["user_id"], fields["item_id"], fields["context"]["hour"]]
                expected = {**fields, "features": features, "spec_id": SPEC.spec_id, "labels": example["labels"]}
                if self._sampling.one_negative_of > 1 and not example["labels"]["like"]:
                    expected["weight"] = self._sampling.one_negative_of
                if example != expected:
                    yield f"an example is {example}, not {expected}"

    def _drawn_right(self) -> Iterator[str]:
        """Beside each positive stand the negatives that the impressions before it in its partition allow."""
        yield from drawn_faults(
            self._sampling,
            KNOWN_IMPRESSIONS,
            self._joined,
            {example["impression_id"]: example for example in self._examples},
            self._drawn,
            self._requested,
        )

    def _together(self) -> Iterator[str]:
        """Each transaction moves offsets and state together, forward; at the end both are at the end."""
        group = group_id(TOPICS, STREAM_GROUP)
        saved: dict[int, dict[TopicPartition, int]] = {}
        for at, log in self._world.broker.logs.items():
            for record in log.records if at.topic == TOPICS.join_state else ():
                position = dict(unpacked(record.value or b"")).get(POSITION)
                if position and record.transaction:
                    offsets = json.loads(position)["offsets"]
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
        half_life = self._world.schedule.half_life_seconds
        for values, records, pushed in self._world.converged:
            examples = [example for value in values if "sampled" not in (example := json.loads(value))]
            updates = [[one for value in of_it for one in json.loads(value)] for of_it in records]
            if self._sampling != SamplingConfig():  # of what was left out nothing but its updates is there
                examples = _updated(updates)
            yield from _updates_whole(examples, updates)
            expected = _aggregates_of(examples)
            if half_life:
                expected = {entity: row for entity, row in expected.items() if entity[0] == "item"}
                expected |= _decayed_users(updates, half_life)
            for entity in expected.keys() | pushed.keys():
                if not _are_near(pushed.get(entity), expected.get(entity)):
                    yield f"aggregates of {entity}: {pushed.get(entity)}, not {expected.get(entity)}"


def _updates_whole(examples: list[dict[str, Any]], updates: list[list[Any]]) -> Iterator[str]:
    """Each example has updated its user and its item, once."""
    expected = Counter(
        (entity, example[f"{entity}_id"], example["event_time_ms"]) for example in examples for entity in _ENTITIES
    )
    found = Counter((entity, entity_id, at_ms) for of_it in updates for entity, entity_id, _, at_ms in of_it)
    yield from (
        f"updates of {one}: {found[one]}, not {expected[one]}"
        for one in expected | found
        if found[one] != expected[one]
    )


def _updated(updates: list[list[Any]]) -> list[dict[str, Any]]:
    """What has updated users and items, in the place of examples; each has updated one of both."""
    by_entity: dict[str, list[Any]] = {entity: [] for entity in _ENTITIES}
    for entity, entity_id, labels, at_ms in (one for of_it in updates for one in of_it):
        by_entity[entity].append((at_ms, json.dumps(labels, sort_keys=True), entity_id))
    pairs = zip(sorted(by_entity["user"], key=str), sorted(by_entity["item"], key=str), strict=True)
    return [
        {"user_id": user, "item_id": item, "event_time_ms": at_ms, "labels": {"rating": None, **json.loads(labels)}}
        for (at_ms, labels, user), (*_, item) in pairs
    ]


def _decayed_users(updates: list[list[Any]], half_life_seconds: float) -> Rows:
    """Users' rows by the updates of each partition; who has less than a millionth of an example is gone."""
    found: Rows = {}
    for of_it in updates:
        newest_ms, states = 0, dict[Any, tuple[int, float, float]]()
        for entity, user, labels, at_ms in of_it:
            newest_ms = max(newest_ms, at_ms)
            if entity == "user":
                last_ms, seen, liked = states.get(user, (at_ms, 0.0, 0.0))
                reached_ms = max(last_ms, at_ms)
                old, new = (2 ** -((reached_ms - then) / 1000 / half_life_seconds) for then in (last_ms, at_ms))
                states[user] = reached_ms, seen * old + new, liked * old + labels["like"] * new
            lasts_ms = {u: half_life_seconds * 1000 * (20 + log2(max(seen, 1))) for u, (_, seen, _) in states.items()}
            states = {u: state for u, state in states.items() if state[0] + lasts_ms[u] > newest_ms}
        found |= {("user", user): {"seen": seen, "liked": liked} for user, (_, seen, liked) in states.items()}
    return found


def _are_near(row: dict[str, float] | None, other: dict[str, float] | None) -> bool:
    """Equal but for rounding."""
    if row is None or other is None:
        return row is other
    return row.keys() == other.keys() and all(isclose(row[name], other[name], abs_tol=1e-6) for name in row)


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
