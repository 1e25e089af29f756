"""What a simulated run is made of, from one seed: what producers send and when, and what goes wrong."""

import itertools
import json
from random import Random
from typing import Literal, NamedTuple
from zlib import crc32

from stream.join.sampling import SamplingConfig
from tests.poison import YEAR_2100_MS, invalid_values
from tests.simulation.broker import START_MS, Headers
from tests.simulation.process import Fault
from tests.stream.pair import TASKS, feedback, impression

WINDOW_MS = {task.name: round(task.window_seconds * 1000) for task in TASKS}
CALLS = (
    *("poll", "ends", "begin", "flush", "offsets", "commit", "trim", "read", "push", "init", "register"),
    *("registered", "latest", "beginnings", "committed", "topics", "close"),
)
_OFTEN = ("flush", "offsets", "commit", "trim", "poll", "push")  # between these lies what must not come apart
_FROZEN = ("begin", "flush", "offsets", "push")  # who wakes up before these may be a zombie

HALF_LIVES = (None, None, 0.3, 2.0)
"""Of the users' aggregates, in seconds, by the seed: a user without examples for 20 of them leaves."""

SAMPLINGS = {
    1: SamplingConfig(drawn_negatives=2),
    2: SamplingConfig(drawn_negatives=3, drawn_by_popularity=0.5),
    5: SamplingConfig(one_negative_of=3),
    7: SamplingConfig(drawn_negatives=1),
}
"""By what is left of the seed divided by 11; the others sample nothing."""
KNOWN_IMPRESSIONS = 7
"""Whose items are drawn from, in each partition: so few that some leave again."""

LAST = 90_000
"""From here on the impressions of a calm schedule are those that only a pause closes."""


class Sent(NamedTuple):
    """A message that a producer sends to `kind`'s topic at `at_ms`.

    `invalid`: it can be no event. `is_aborted`: it is written in a transaction that is aborted `open_ms` later.
    """

    at_ms: float
    kind: Literal["impressions", "feedback"]
    key: bytes
    value: bytes | None
    headers: Headers = ()
    invalid: bool = False
    is_aborted: bool = False
    open_ms: float = 0.0


class Trouble(NamedTuple):
    """What is wrong with the world for a time: Redis or the broker's disk, or an instance's wall clock by `by_ms`."""

    kind: Literal["redis", "disk", "clock", "stop"]
    at_ms: float
    ms: float
    instance: str = ""
    by_ms: float = 0.0


class Limits(NamedTuple):
    """Sizes that a seed draws small, so that few messages reach them."""

    step_messages: int
    uncommitted: int
    buffered: int
    floor_bytes: int
    segment_ids: int


class Schedule(NamedTuple):
    """All of a run: `parts` of it can be left out, which leaves a schedule."""

    seed: int
    partitions: int
    instances: tuple[str, ...]
    dedup_seconds: float
    commit_seconds: float
    half_life_seconds: float | None
    sampling: SamplingConfig
    limits: Limits
    sent: tuple[Sent, ...]
    faults: tuple[Fault, ...]
    troubles: tuple[Trouble, ...]

    @property
    def end_ms(self) -> float:
        """When the last message was sent and the last trouble is over; no fault strikes after it."""
        return max([0.0, *(s.at_ms + s.open_ms for s in self.sent), *(t.at_ms + t.ms for t in self.troubles)])


def partition_of(key: bytes, partitions: int) -> int:
    """Where producers send a key."""
    return crc32(key) % partitions


def schedule_of(seed: int) -> Schedule:
    """A schedule with everything that can go wrong."""
    random = Random(seed)
    sent = _sent(random)
    length_ms = max(s.at_ms for s in sent)
    instances = ("a", "b")[: random.choice((1, 2))]
    return Schedule(
        seed,
        random.choice((1, 2, 3)),
        instances,
        random.choice((5.0, 100.0)),
        random.choice((0.05, 0.5, 3.0)),
        HALF_LIVES[seed % len(HALF_LIVES)],
        SAMPLINGS.get(seed % 11, SamplingConfig()),
        _limits(random),
        sent,
        tuple(_fault(random, instances) for _ in range(random.choice((0, 1, 3, 6)))),
        tuple(_trouble(random, instances, length_ms) for _ in range(random.choice((0, 0, 1, 2)))),
    )


def calm_schedule_of(seed: int, count: int = 60) -> Schedule:
    """All is sent at once, in the order of event time, and at its end event time passes every window.

    So whatever reads it makes the same of it, at any speed; only the last impression of each partition closes in a
    pause. The faults are those of `schedule_of`.
    """
    random, partitions, faults = Random(seed), 2, schedule_of(seed).faults
    events = _events(random, count, START_MS - 10**7, ahead=False)
    sent = [message_of(event, 0.0) for event in sorted(events, key=lambda event: event["event_time_ms"])]
    for poison in (_poison(random, 0.0)._replace(headers=()) for _ in range(9)):
        if poison.invalid:
            sent.insert(random.randrange(len(sent)), poison)
    for partition in range(partitions):
        end = next(number for number in itertools.count(LAST) if partition_of(b"i%d" % number, partitions) == partition)
        sent += [message_of(impression(end, START_MS), 0.0), message_of(feedback(end, "like", 1, START_MS), 0.0)]
    faults = tuple(fault._replace(instance="a") for fault in faults)
    limits = Limits(7, 20, 2_000, 2_000, 3)
    sampling = SAMPLINGS.get(seed % 11, SamplingConfig())
    return Schedule(seed, partitions, ("a",), 100.0, 0.05, None, sampling, limits, tuple(sent), faults, ())


def _limits(random: Random) -> Limits:
    step_messages, uncommitted = random.choice((2, 7, 1_000)), random.choice((3, 5_000))
    floor_bytes = random.choice((0, 0, 2_000, 1_000_000))
    return Limits(step_messages, uncommitted, random.choice((2, 2_000)), floor_bytes, random.choice((1, 3, 128)))


def _sent(random: Random) -> tuple[Sent, ...]:
    """Impressions with feedback, sent live or as a replay, with pauses, lags, disorder, duplicates and poison."""
    replayed_ms = random.choice((0, 0, 5_000, 10**8))
    events = _events(random, random.randint(3, 25), START_MS + 1_000 - replayed_ms, ahead=random.random() < 0.2)
    speed = random.choice((1.0, 1.0, 0.05, 4.0))
    lag_ms = {"impressions": random.choice((0.0, 0.0, 8_000.0)), "feedback": random.choice((0.0, 0.0, 8_000.0))}
    disorder = random.choice((0.0, 0.0, 0.1, 0.3))
    messages: list[Sent] = []
    at_ms, previous = 1_000.0, min(event["event_time_ms"] for event in events)
    for event in sorted(events, key=lambda event: event["event_time_ms"]):
        step_ms = min(event["event_time_ms"] - previous, 60_000) * speed
        at_ms += step_ms + (random.choice((20_000.0, 70_000.0, 130_000.0)) if random.random() < 0.02 else 0.0)
        previous = event["event_time_ms"]
        message = message_of(event, 0.0)
        late_ms = random.random() * random.choice((2_000, 30_000, 100_000)) if random.random() < disorder else 0.0
        messages.append(message._replace(at_ms=at_ms + lag_ms[message.kind] + late_ms))
        if random.random() < 0.1:
            again_ms = random.choice((0.0, 500.0, 90_000.0))
            messages.append(messages[-1]._replace(at_ms=messages[-1].at_ms + again_ms))
        if random.random() < 0.03:
            messages.append(_ghost(random, at_ms))
    messages += [_poison(random, random.random() * at_ms) for _ in range(random.choice((0, 0, 1, 3)))]
    return tuple(sorted(messages, key=lambda message: message.at_ms))


def _events(random: Random, count: int, start_ms: int, *, ahead: bool) -> list[dict[str, object]]:
    """Impressions, and their feedback within and beyond its window."""
    events = []
    at = start_ms
    spacing_ms = random.choice((300, 3_000, 15_000))
    for number in range(count):
        at += random.randint(0, spacing_ms)
        shown_ms = at + (random.randint(0, 250_000) if ahead and random.random() < 0.2 else 0)
        events.append(impression(number, shown_ms))
        for task, window_ms in WINDOW_MS.items():
            for _ in range(random.choice((0, 1, 1, 3))):
                after_ms = random.choice((0, random.randint(0, window_ms), window_ms, window_ms + 1, -1))
                after_ms = after_ms if random.random() < 0.2 else random.randint(0, window_ms)
                value = random.randint(0, 1) if task == "like" else random.randint(1, 5)
                events.append(feedback(number, task, value, shown_ms + after_ms))
    unknown = range(1_000, 1_000 + random.choice((0, 0, 2)))  # nobody was shown these
    return events + [feedback(number, "like", 1, random.randint(start_ms, at + 1)) for number in unknown]


def message_of(event: dict[str, object], at_ms: float) -> Sent:
    """An event as a producer sends it."""
    kind = "feedback" if "task" in event else "impressions"
    return Sent(at_ms, kind, str(event["impression_id"]).encode(), json.dumps(event).encode())


def _ghost(random: Random, at_ms: float) -> Sent:
    """A message whose transaction is aborted: no reader may see it."""
    number, open_ms = 5_000 + random.randrange(1_000), random.choice((100.0, 3_000.0))
    event = random.choice((impression(number, START_MS + int(at_ms)), feedback(1, "like", 1, START_MS + int(at_ms))))
    return message_of({**event, "impression_id": f"ghost{number}"}, at_ms)._replace(is_aborted=True, open_ms=open_ms)


def _poison(random: Random, at_ms: float) -> Sent:
    """A message that nobody planned for."""
    number = 9_000 + random.randrange(1_000)
    wall_ms = START_MS + int(at_ms)
    bad = invalid_values(impression(number, wall_ms), feedback(number % 20, "like", 1, wall_ms))
    odd: list[tuple[bytes, bool]] = [
        (json.dumps(impression(number, YEAR_2100_MS)).encode(), False),
        (json.dumps(impression(number, 0)).encode(), False),
        (json.dumps(feedback(number % 20, "rating", 1, YEAR_2100_MS)).encode(), False),
        (json.dumps(feedback(number % 20, "rating", 1, 0)).encode(), False),
        (json.dumps(impression(number, -1)).encode(), True),
    ]
    value, invalid = random.choice([*((one, True) for one in bad), *odd])
    if random.random() < 0.01:
        value, invalid = b"x" * 4_000_000, True
    headers = random.choice(((), (("n", None),), (("graft.errors.code", b"forged"), ("__streams.errors.offset", b"7"))))
    kind: Literal["impressions", "feedback"] = "feedback" if value and b'"task"' in value else "impressions"
    return Sent(at_ms, kind, f"i{number % 20}".encode(), value, headers, invalid)


def _fault(random: Random, instances: tuple[str, ...]) -> Fault:
    kind = random.choice(("kill", "kill", "freeze", "freeze", "fail"))
    call = random.choice((*CALLS, *(_FROZEN * 6 if kind == "freeze" else _OFTEN * 3)))
    nth = random.randint(1, random.choice((3, 15, 40)))
    ms = random.choice((random.random() * 500, 3_000.0, 7_000.0, 9_000.0, 12_000.0, 25_000.0, 80_000.0))
    when = random.choice(("before", "after"))
    has_twin = kind == "freeze" and random.random() < (0.9 if call == "push" else 0.3)  # else it soon pushes all again
    return Fault(kind, random.choice(instances), call, nth, when, ms, has_twin)


def _trouble(random: Random, instances: tuple[str, ...], length_ms: float) -> Trouble:
    kind = random.choice(("redis", "disk", "clock", "stop"))
    at_ms = random.random() * length_ms
    by_ms = random.choice((-100_000.0, -3_000.0, 50_000.0, 10**8))
    return Trouble(kind, at_ms, random.choice((500.0, 5_000.0, 40_000.0, 90_000.0)), random.choice(instances), by_ms)
