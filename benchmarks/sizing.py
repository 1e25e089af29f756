"""What a pair needs at so many events a second, on paper: from the rates that benchmarks/results/ has of one process.

    python benchmarks/sizing.py

Every process is planned at half of what one core has done. A third of the events are impressions, as in stream_join.py;
ten impressions are one request of 100 items. Prices are an assumption of this page: a month of a core and of a GiB.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
_EVENTS = (100, 1_000, 10_000, 100_000, 1_000_000)
_HALF = 0.5
_IMPRESSIONS, _IMPRESSIONS_OF_REQUEST = 1 / 3, 10
_POSITIVES = 0.05  # of the impressions, where negatives are sampled
_ROWS_A_SECOND = 50_000  # that one Redis takes: the low end of docs/decisions/003-teacher-cache.md
_ENTITIES = 1_000  # users for each event a second, and a tenth of that in items
_BYTES_OF_ENTITY, _BYTES_OF_LOGITS = 500, 45 * 100  # a user's features; 100 rows of a user (decision 22)
_CORE, _GIB = 30, 3  # dollars a month
_MEMORY = {"stream": 1.0, "teacher": 0.5, "learner": 2.0, "scorer": 0.25}  # GiB a process (docs/operations.md)


def rates() -> dict[str, float]:
    """What one process on one core has done a second."""
    read = {name: json.loads((_RESULTS / f"{name}.json").read_text()) for name in ("stream_join", "learner", "serving")}
    backfill = json.loads((_RESULTS / "teacher_backfill.json").read_text())["teachers"]
    return {
        "stream": read["stream_join"]["records_per_second"],
        "teacher": min(of["backfill_rows_per_second"] for of in backfill.values()),
        "learner": read["learner"]["examples_per_second"],
        "scorer": read["serving"]["requests_per_second"],
    }


def sizes(events: int, rate: dict[str, float]) -> dict[str, float]:
    """Processes of each kind, one negative of how many is learnt, GiB of all, dollars a month."""
    examples = events * _IMPRESSIONS
    most = rate["learner"] * _HALF / examples
    kept = 1 if most >= 1 else math.ceil((1 - _POSITIVES) / max(most - _POSITIVES, 1e-9))
    wanted = {
        "stream": events / rate["stream"],
        "teacher": examples / rate["teacher"],
        "scorer": examples / _IMPRESSIONS_OF_REQUEST / rate["scorer"],
    }
    found = {name: float(max(2, math.ceil(part / _HALF))) for name, part in wanted.items()}
    found["learner"] = 1
    users = events * _ENTITIES
    redis = users * (1.1 * _BYTES_OF_ENTITY + _BYTES_OF_LOGITS) / 2**30
    memory = sum(_MEMORY[name] * found[name] for name in _MEMORY) + redis
    cores = sum(found[name] for name in _MEMORY) + math.ceil(examples / _ROWS_A_SECOND) + 3  # Redis; Kafka's three
    month = cores * _CORE + memory * _GIB
    return {
        **found,
        "one_negative_of": kept if most > _POSITIVES else math.inf,
        "redis": redis,
        "memory": memory,
        "month": month,
    }


def table() -> Iterator[str]:
    """The lines of the table in docs/operations.md."""
    yield "| events/s | users | items | stream | teacher | learner | scorer | Redis, GiB | memory, GiB | $ a month |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    rate = rates()
    for events in _EVENTS:
        of = sizes(events, rate)
        kept = of["one_negative_of"]
        learner = "1" if kept == 1 else "more than 1" if math.isinf(kept) else f"1, one negative of {kept:.0f}"
        cells = [
            *(f"{number:,}" for number in (events, events * _ENTITIES, events * _ENTITIES // 10)),
            *(f"{of[name]:,.0f}" for name in ("stream", "teacher")),
            learner,
            f"{of['scorer']:,.0f}",
            *(f"{of[name]:,.1f}" if of[name] < 10 else f"{of[name]:,.0f}" for name in ("redis", "memory")),
            f"{of['month']:,.0f}",
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(table()))
