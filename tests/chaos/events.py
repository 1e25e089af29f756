"""The live traffic of a run, from one seed: events of the pair in fixtures/simulated, and poison between them."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Literal, NamedTuple

from tests.poison import NULL, YEAR_2100_MS, OddName, invalid_values, with_number

Header = tuple[str, bytes]
Topic = Literal["impressions", "feedback"]

USERS = [f"listener-{number:04d}" for number in range(150)]
ITEMS = list(range(10_000, 10_120))
DEVICES = ("phone", "speaker", "car")

_POISON, _AGAIN, _UNKNOWN, _LATE = 0.06, 0.05, 0.01, 0.03  # shares of the impressions, or of the events

_HEADERS: tuple[tuple[Header, ...], ...] = (
    *((),) * 9,
    (("trace", NULL),),
    ((OddName("x"), b"1"),),
    (("graft.errors.code", b"forged"), ("__streams.errors.offset", b"7")),
)


class Sent(NamedTuple):
    """A message that a producer sends to `topic` at `at_ms` of its clock; `is_invalid`: it can be no event."""

    at_ms: float
    topic: Topic
    key: bytes
    value: bytes | None
    headers: tuple[Header, ...] = ()
    is_invalid: bool = False


def traffic_of(seed: int, seconds: float, per_second: float, window_ms: int, start_ms: int) -> list[Sent]:
    """`per_second` impressions for so many seconds from `start_ms` on, each sent when it happens, with what answers it.

    Some come twice or up to two seconds late; some feedback answers nothing. Poison stands in between.
    """
    random = Random(seed)
    messages: list[Sent] = []
    for number in range(int(seconds * per_second)):
        name = f"c{number:06d}"
        at = number / per_second * 1000
        shown_ms = start_ms + int(at)
        for event in (_impression(random, name, shown_ms), *_answers(random, name, shown_ms, window_ms)):
            sent_ms = max(at, event["event_time_ms"] - start_ms)
            late_ms = random.random() * 2_000 if random.random() < _LATE else 0.0
            messages.append(_message(event, sent_ms + late_ms))
            if random.random() < _AGAIN:
                messages.append(_message(event, sent_ms + late_ms + random.random() * 20_000))
        if random.random() < _UNKNOWN:
            messages.append(_message(_feedback(f"unknown{number}", "click", 1, shown_ms), at))
        if random.random() < _POISON:
            messages.append(_poison(random, name, shown_ms)._replace(at_ms=at))
    return sorted(messages, key=lambda sent: sent.at_ms)


def _impression(random: Random, name: str, at_ms: int) -> dict[str, Any]:
    """An impression of a user and an item that the pair knows."""
    return {
        "impression_id": name,
        "user_id": random.choice(USERS),
        "item_id": random.choice(ITEMS),
        "event_time_ms": at_ms,
        "context": {"device": random.choice(DEVICES)},
    }


def _feedback(name: str, task: str, value: float, at_ms: int) -> dict[str, Any]:
    """The value of one task that answers the impression `name`."""
    return {"impression_id": name, "task": task, "value": value, "event_time_ms": at_ms}


def _answers(random: Random, name: str, shown_ms: int, window_ms: int) -> Iterator[dict[str, Any]]:
    """Feedback to an impression: most of it within its window, some at its ends and beyond, some of it corrected."""
    if random.random() < 0.6:
        clicked = float(random.random() < 0.5)
        yield _feedback(name, "click", clicked, shown_ms + _after_ms(random, window_ms))
        if clicked:
            for _ in range(random.choice((1, 1, 2))):
                seconds = round(random.random() * 5, 2)
                yield _feedback(name, "dwell", seconds, shown_ms + _after_ms(random, window_ms))


def _message(event: dict[str, Any], at_ms: float, headers: tuple[Header, ...] = ()) -> Sent:
    """An event as a producer sends it."""
    topic: Topic = "feedback" if "task" in event else "impressions"
    return Sent(at_ms, topic, event["impression_id"].encode(), json.dumps(event).encode(), headers)


def _poison(random: Random, name: str, now_ms: int) -> Sent:
    """A message that nobody planned for, under the key of the impression `name`."""
    shown, answer = _impression(random, f"poison-{name}", now_ms), _feedback(name, "click", 1, now_ms)
    dwell = _feedback(name, "dwell", 1, now_ms)
    if random.random() < 0.25:
        odd = _odd_times(random, shown, answer, now_ms)
        return _message(odd, now_ms, random.choice(_HEADERS))._replace(key=name.encode())
    invalid = [
        *invalid_values(shown, answer),
        *(with_number(dwell, digits) for digits in ("1e39", "-1e400", "Infinity", '"1"', "null", "true", "[1]")),
        with_number(answer, "2"),
        json.dumps({**shown, "impression_id": ""}).encode(),
        json.dumps({**shown, "user_id": 7}).encode(),
        json.dumps({**shown, "item_id": 2**63}).encode(),
        json.dumps({**shown, "context": {"device": "phone", "mood": 1}}).encode(),
        json.dumps({**shown, "event_time_ms": -1}).encode(),
        json.dumps({**shown, "event_time_ms": now_ms * 1_000_000}).encode(),  # nanoseconds
        json.dumps({**shown, "event_time_ms": now_ms / 1000}).encode(),
        random.randbytes(random.randint(1, 200)),
    ]
    value = random.choice(invalid)
    topic: Topic = "feedback" if value and b'"task"' in value else "impressions"
    return Sent(now_ms, topic, name.encode(), value, random.choice(_HEADERS), is_invalid=True)


def _odd_times(random: Random, shown: dict[str, Any], answer: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """A sound event of the year 2100, or of January 1970, as of a producer that counts seconds."""
    event = random.choice((shown, answer))
    return {**event, "event_time_ms": random.choice((YEAR_2100_MS, now_ms // 1000))}


def _after_ms(random: Random, window_ms: int) -> int:
    if random.random() < 0.05:
        return random.choice((-1, 0, window_ms, window_ms + 1, window_ms + 2_000))
    return random.randint(0, window_ms - window_ms // 4)
