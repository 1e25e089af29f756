"""What the teacher cache costs: bytes, writes and reads per logit, on an embedded Valkey, with and without a context.

Also how many rows come again where a context makes another row of them: in the simulated pair, whose slates have one
context each.

Run: python benchmarks/logit_cache.py [--rows 200000]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.spec import Feature, Value
from lab.embedded import EmbeddedRedis
from lab.pairs.project_folder import EVENTS
from lab.pairs.simulated.project import Sizes, write_simulated
from runtime.redis import Client, connect
from stream.event_file import impressions_of
from teacher_cache.cache import LogitCache
from teacher_cache.context_key import ContextKey
from teacher_cache.request_scorer import BATCH_ROWS

READS = 200
TTL_SECONDS = 86_400
DAY_MS = 86_400_000
KINDS: dict[str, Callable[[int], Any]] = {"int": lambda n: n, "uuid": lambda n: f"{n:08x}-0000-4000-8000-000000000000"}
CONTEXT = Feature(name="context:n", source="context", role="passthrough", dtype="int", default=None)


class Row(NamedTuple):
    """One of a user's rows; the context is its only feature."""

    user_id: Any
    item_id: Any
    features: tuple[Value, ...]


class Shape(NamedTuple):
    """Of a cache: the kind of ids, teacher tasks, items of a user, and how many of these are in one context."""

    kind: str = "int"
    tasks: int = 3
    items: int = 100
    in_context: int | None = None

    @property
    def told(self) -> str:
        """As cells of a table."""
        of_context = "no context" if self.in_context is None else self.in_context
        return f"| {self.kind} | {self.tasks} | {self.items} | {of_context} |"


SHAPES = (
    *(Shape(kind, tasks) for kind in KINDS for tasks in (3, 8)),
    Shape(items=1000),
    *(Shape(in_context=rows) for rows in (100, 10, 4, 1)),
    Shape("uuid", in_context=4),
    Shape(items=1000, in_context=40),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    print(f"{rows} rows in batches of {BATCH_ROWS}, scattered over all users\n")
    print(
        "| ids | tasks | items a user | rows in a context | B/row | MEMORY USAGE/row | put rows/s | us of CPU a row "
        "| get 1,024 rows, p50 ms | us of CPU a row | get 100 of one user, p50 ms |\n" + 11 * "|---" + "|"
    )
    for shape in SHAPES:
        print(f"{shape.told} " + " | ".join(measure(shape, rows)) + " |", flush=True)
    print("\nNot chosen (int ids, 3 tasks, 100 items a user):")
    for name, in_context, put in OTHERS:
        print(f"{name}: " + ", ".join(measure_other(in_context, put, rows)), flush=True)
    print("\nShare of the simulated pair's impressions whose row an earlier one had, where a row is")
    for name, share in seen_before():
        print(f"{name}: {share:.3f}")


def measure(shape: Shape, rows: int) -> list[str]:
    with EmbeddedRedis() as server, connect(server.url) as client:
        names = [f"task_{i}" for i in range(shape.tasks)]
        context = ContextKey([] if shape.in_context is None else [CONTEXT.name], [CONTEXT])
        cache = LogitCache(server.url, "bench", names, TTL_SECONDS, context)
        scattered = scattered_rows(shape, rows)
        logit_BT = np.random.default_rng(1).normal(size=(BATCH_ROWS, shape.tasks)).astype(np.float32)
        began = cpu_seconds(client)
        used, speed = put_all(
            client,
            scattered,
            lambda some: cache.put(cache.keys_of(some), logit_BT[: len(some)], time.time_ns() // 1_000_000),
        )
        put_us = 1e6 * (cpu_seconds(client) - began) / rows
        hashes = sum(client.memory_usage(key) for key in client.scan_iter("graft:logits:*"))  # type: ignore[misc]
        began = cpu_seconds(client)
        read_ms = read_p50_ms(cache, scattered[:BATCH_ROWS])
        read_us = 1e6 * (cpu_seconds(client) - began) / READS / BATCH_ROWS
        of_user_ms = read_p50_ms(cache, rows_of_user(shape, 0, 100))
        cache.close()
    sizes = [used, f"{hashes / rows:.0f}"]
    return [*sizes, speed, f"{put_us:.1f}", f"{read_ms:.2f}", f"{read_us:.1f}", f"{of_user_ms:.2f}"]


def cpu_seconds(client: Client) -> float:
    """Of this process and of the server so far."""
    server = client.info("cpu")
    return time.process_time() + float(server["used_cpu_user"]) + float(server["used_cpu_sys"])


def measure_other(in_context: int | None, put: Callable[[Client, Sequence[Row]], object], rows: int) -> list[str]:
    with EmbeddedRedis() as server, connect(server.url) as client:
        scattered = scattered_rows(Shape(in_context=in_context), rows)
        size, speed = put_all(client, scattered, lambda some: put(client, some))
    return [f"{size} B/row", f"{speed} rows/s"]


def scattered_rows(shape: Shape, rows: int) -> list[Row]:
    """Rows in the order of a stream: neighbours belong to different users."""
    order = np.random.default_rng(0).permutation(rows).tolist()
    return [row_of(shape, n // shape.items, n % shape.items) for n in order]


def rows_of_user(shape: Shape, user: int, count: int) -> list[Row]:
    return [row_of(shape, user, item) for item in range(count)]


def row_of(shape: Shape, user: int, item: int) -> Row:
    make = KINDS[shape.kind]
    return Row(make(user), make(item), (item // (shape.in_context or shape.items),))


def put_all(client: Client, rows: Sequence[Row], put: Callable[[Sequence[Row]], object]) -> tuple[str, str]:
    """Bytes per row and rows per second of putting everything, batch by batch."""
    empty = client.info("memory")["used_memory"]
    started = time.perf_counter()
    for at in range(0, len(rows), BATCH_ROWS):
        put(rows[at : at + BATCH_ROWS])
    seconds = time.perf_counter() - started
    used = client.info("memory")["used_memory"] - empty
    return f"{used / len(rows):.0f}", f"{len(rows) / seconds:,.0f}"


def put_strings(client: Client, rows: Sequence[Row]) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item, _ in rows:
        pipeline.set(f"graft:logits:bench:{user}:{item}", b"x" * 16, ex=TTL_SECONDS)
    pipeline.execute()


def put_fields_with_ttl(client: Client, rows: Sequence[Row]) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item, _ in rows:
        pipeline.hsetex(f"graft:logits:bench:{user}", str(item), b"x" * 16, ex=TTL_SECONDS)
    pipeline.execute()


def put_context_in_field(client: Client, rows: Sequence[Row]) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item, (context,) in rows:
        pipeline.hset(f"graft:logits:bench:{user}", f"{item}:{context:016x}", b"x" * 16)
        pipeline.expire(f"graft:logits:bench:{user}", TTL_SECONDS)
    pipeline.execute()


def put_context_in_field_with_ttl(client: Client, rows: Sequence[Row]) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item, (context,) in rows:
        pipeline.hsetex(f"graft:logits:bench:{user}", f"{item}:{context:016x}", b"x" * 16, ex=TTL_SECONDS)
    pipeline.execute()


OTHERS: tuple[tuple[str, int | None, Callable[[Client, Sequence[Row]], object]], ...] = (
    ("string per row, SET EX", None, put_strings),
    ("field TTL, HSETEX", None, put_fields_with_ttl),
    ("context in the field, without a TTL of its own", 4, put_context_in_field),
    ("context in the field, HSETEX", 4, put_context_in_field_with_ttl),
)


def read_p50_ms(cache: LogitCache, rows: Sequence[Row]) -> float:
    times = []
    for _ in range(READS):
        started = time.perf_counter()
        found = cache.get(cache.keys_of(rows))
        times.append(time.perf_counter() - started)
        assert np.isfinite(found.logit_BT).all()
    return float(np.median(times)) * 1000


def seen_before() -> list[tuple[str, float]]:
    """By what makes a row: the share of impressions whose row an earlier impression had."""
    with tempfile.TemporaryDirectory() as name:
        write_simulated(Path(name) / "pair", Sizes(), 1)
        shown = list(impressions_of(Path(name) / "pair" / EVENTS))
    rows: dict[str, Iterable[Hashable]] = {
        "user and item": ((one.user_id, one.item_id) for one in shown),
        "user, item and device": ((one.user_id, one.item_id, one.context["device"]) for one in shown),
        "user, item and hour": ((one.user_id, one.item_id, one.event_time_ms % DAY_MS // 3_600_000) for one in shown),
    }
    return [(name, 1 - len(set(of)) / len(shown)) for name, of in rows.items()]


if __name__ == "__main__":
    main()
