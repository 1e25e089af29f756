"""A small pair for the stream's tests: its tasks, its spec, its features in Redis, and events from a seed."""

import json
import random
from collections.abc import Iterable

from features.config import AggregateConfig
from features.spec import Feature, FeatureSpec
from stream.config import StreamConfig, Topics
from stream.join.log_cleaner import Entry
from stream.tasks import TaskSpec

TASKS = (
    TaskSpec(name="like", kind="binary", window_seconds=20),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
)
AGGREGATES = (
    AggregateConfig(entity="user", push_source="user_push", columns={"seen": "count", "liked": "sum(like)"}),
    AggregateConfig(entity="item", push_source="item_push", columns={"shown": "count", "rated": "mean(rating)"}),
)
SPEC = FeatureSpec(
    feast_project="pair",
    user_join_key="user_id",
    item_join_key="item_id",
    user_id_type="int",
    item_id_type="str",
    entity_key_serialization_version=3,
    features=(
        Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=0),
        Feature(name="item_id", source="item_id", role="categorical", dtype="str", default=""),
        Feature(name="context:hour", source="context", role="dense", dtype="int", default=0),
    ),
)


def stream_config(prefix: str, partitions: int = 1) -> StreamConfig:
    return StreamConfig(
        topic_prefix=prefix, partitions=partitions, idle_seconds=0.5, dedup_seconds=100, commit_seconds=0.05
    )


def topics(prefix: str) -> Topics:
    return Topics(prefix=prefix)


def save(state: dict[str, bytes], changes: Iterable[Entry]) -> dict[str, bytes]:
    """Put changes into a saved state, as its log does."""
    for key, value in changes:
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


def impression(number: int, at_ms: int, **changes: object) -> dict[str, object]:
    return {
        "impression_id": f"i{number}",
        "user_id": number % 7,
        "item_id": f"item{number % 5}",
        "event_time_ms": at_ms,
        "context": {"hour": number % 24},
        **changes,
    }


def feedback(number: int, task: str, value: float, event_time_ms: int) -> dict[str, object]:
    return {"impression_id": f"i{number}", "task": task, "value": value, "event_time_ms": event_time_ms}


class Scenario:
    """`count` impressions and their feedback in time order, with the labels that must come out.

    Every tenth impression comes twice; every seventh has feedback after its window, every eleventh bad bytes.
    """

    def __init__(self, count: int, seed: int = 0, *, first: int = 0, start_ms: int = 1_000_000) -> None:
        chance = random.Random(seed)
        self.labels: dict[str, dict[str, float | None]] = {}
        self.bad: list[bytes] = []
        self.late: list[bytes] = []
        events: list[tuple[int, bool, bytes, str]] = []

        def add(record: dict[str, object], *, is_impression: bool) -> bytes:
            raw = json.dumps(record).encode()
            events.append((int(str(record["event_time_ms"])), is_impression, raw, str(record["impression_id"])))
            return raw

        for number in range(first, first + count):
            at = start_ms + (number - first) * 500
            add(impression(number, at), is_impression=True)
            if number % 10 == 0:
                add(impression(number, at), is_impression=True)
            like, rating = float(chance.random() < 0.4), None
            if like or chance.random() < 0.5:
                add(feedback(number, "like", like, at + chance.randint(0, 20_000)), is_impression=False)
            if chance.random() < 0.6:
                rating = float(chance.randint(1, 5))
                when = at + chance.randint(1, 30_000)
                add(feedback(number, "rating", 9.0, when - 1), is_impression=False)
                add(feedback(number, "rating", rating, when), is_impression=False)
            if number % 7 == 0:
                self.late.append(add(feedback(number, "like", 1, at + 20_001), is_impression=False))
            if number % 11 == 0:
                raw = f"not json {number}".encode()
                self.bad.append(raw)
                events.append((at, True, raw, f"i{number}"))
            self.labels[f"i{number}"] = {"like": like, "rating": rating}
        events.sort(key=lambda e: (e[0], not e[1]))
        self.lines = [("impression" if first else "feedback", key, raw) for _, first, raw, key in events]
