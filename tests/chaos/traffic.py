"""The live traffic of a run, from one seed."""

from random import Random
from typing import Any

from tests.chaos.events import Sent, answers, feedback, impression, message, poison

_POISON = 0.06
_AGAIN = 0.05
_UNKNOWN = 0.01
_LATE = 0.03


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
        events: list[dict[str, Any]] = [impression(random, name, shown_ms)]
        events += answers(random, name, shown_ms, window_ms)
        for event in events:
            sent_ms = max(at, event["event_time_ms"] - start_ms)
            late_ms = random.random() * 2_000 if random.random() < _LATE else 0.0
            messages.append(message(event, sent_ms + late_ms))
            if random.random() < _AGAIN:
                messages.append(message(event, sent_ms + late_ms + random.random() * 20_000))
        if random.random() < _UNKNOWN:
            messages.append(message(feedback(f"unknown{number}", "click", 1, shown_ms), at))
        if random.random() < _POISON:
            messages.append(poison(random, name, shown_ms)._replace(at_ms=at))
    return sorted(messages, key=lambda sent: sent.at_ms)
