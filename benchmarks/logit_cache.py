"""What the teacher cache costs: bytes, writes and reads per logit, on an embedded Valkey.

Run: python benchmarks/logit_cache.py [--rows 200000]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lab.embedded import EmbeddedRedis
from runtime.redis import Client, connect
from teacher_cache.cache import LogitCache
from teacher_cache.request_scorer import BATCH_ROWS

READS = 200
TTL_SECONDS = 86_400
KINDS: dict[str, Callable[[int], Any]] = {"int": lambda n: n, "uuid": lambda n: f"{n:08x}-0000-4000-8000-000000000000"}
Ids = list[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    print(f"{rows} rows in batches of {BATCH_ROWS}, scattered over all users\n")
    print("| ids | tasks | items a user | B/row | put rows/s | get 1,024 rows, p50 ms | get 100 of one user, p50 ms |")
    print("|---|---|---|---|---|---|---|")
    for kind, tasks, items in (("int", 3, 100), ("int", 8, 100), ("uuid", 3, 100), ("uuid", 8, 100), ("int", 3, 1000)):
        print(f"| {kind} | {tasks} | {items} | " + " | ".join(measure(kind, tasks, items, rows)) + " |", flush=True)
    print("\nNot chosen (int ids, 3 tasks, 100 items a user):")
    for name, put in (("string per row, SET EX", put_strings), ("field TTL, HSETEX", put_fields_with_ttl)):
        print(f"{name}: " + ", ".join(measure_other(put, rows)), flush=True)


def measure(kind: str, tasks: int, items_per_user: int, rows: int) -> list[str]:
    with EmbeddedRedis() as server, connect(server.url) as client:
        cache = LogitCache(server.url, "bench", [f"task_{i}" for i in range(tasks)], TTL_SECONDS)
        users, items = scattered_ids(kind, items_per_user, rows)
        logit_BT = np.random.default_rng(1).normal(size=(BATCH_ROWS, tasks)).astype(np.float32)
        written = put_all(
            client, users, items, lambda u, i: cache.put(u, i, logit_BT[: len(u)], time.time_ns() // 1_000_000)
        )
        scattered = read_p50_ms(cache, users[:BATCH_ROWS], items[:BATCH_ROWS])
        one_user = read_p50_ms(cache, [KINDS[kind](0)] * 100, [KINDS[kind](n) for n in range(100)])
        cache.close()
    return [*written, f"{scattered:.2f}", f"{one_user:.2f}"]


def measure_other(put: Callable[[Client, Ids, Ids], object], rows: int) -> list[str]:
    with EmbeddedRedis() as server, connect(server.url) as client:
        users, items = scattered_ids("int", 100, rows)
        size, speed = put_all(client, users, items, lambda u, i: put(client, u, i))
    return [f"{size} B/row", f"{speed} rows/s"]


def scattered_ids(kind: str, items_per_user: int, rows: int) -> tuple[Ids, Ids]:
    """Users and items in the order of a stream: neighbours belong to different users."""
    order = np.random.default_rng(0).permutation(rows)
    make = KINDS[kind]
    return [make(int(n) // items_per_user) for n in order], [make(int(n) % items_per_user) for n in order]


def put_all(client: Client, users: Ids, items: Ids, put: Callable[[Ids, Ids], object]) -> list[str]:
    """Bytes per row and rows per second of putting everything, batch by batch."""
    empty = client.info("memory")["used_memory"]
    started = time.perf_counter()
    for at in range(0, len(users), BATCH_ROWS):
        put(users[at : at + BATCH_ROWS], items[at : at + BATCH_ROWS])
    seconds = time.perf_counter() - started
    used = client.info("memory")["used_memory"] - empty
    return [f"{used / len(users):.0f}", f"{len(users) / seconds:,.0f}"]


def put_strings(client: Client, users: Ids, items: Ids) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item in zip(users, items, strict=True):
        pipeline.set(f"graft:logits:bench:{user}:{item}", b"x" * 16, ex=TTL_SECONDS)
    pipeline.execute()


def put_fields_with_ttl(client: Client, users: Ids, items: Ids) -> None:
    pipeline = client.pipeline(transaction=False)
    for user, item in zip(users, items, strict=True):
        pipeline.hsetex(f"graft:logits:bench:{user}", str(item), b"x" * 16, ex=TTL_SECONDS)
    pipeline.execute()


def read_p50_ms(cache: LogitCache, users: Ids, items: Ids) -> float:
    times = []
    for _ in range(READS):
        started = time.perf_counter()
        found = cache.get(users, items)
        times.append(time.perf_counter() - started)
        assert np.isfinite(found.logit_BT).all()
    return float(np.median(times)) * 1000


if __name__ == "__main__":
    main()
