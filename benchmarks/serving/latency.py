"""Latency over its floor, and throughput of one process and of two."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks import scorer
from benchmarks.serving.load import WARM_UP_SECONDS, closed_loop, constant_rate, with_wrk
from benchmarks.serving.world import (
    BODIES,
    REQUESTS,
    World,
    cpu_seconds,
    echo_serving,
    floor_serving,
    graft_serving,
    on_cores,
)
from features.online.async_reader import AsyncOnlineReader

RATES = (50, 200, 500, 1_000)
ROUNDS = 8
THROUGHPUT_ROUNDS = 5


def over_floor(of: World, seconds: float) -> dict[str, Any]:
    """Requests at constant rates, and the parts of their floor at the same rates, in turns.

    The floor of a percentile: that of an echo of the same bytes, of one Redis round trip for the user, and of the bare
    forward, each at the rate and on the core of the requests: what sleeps in between, as a scorer at 200 requests a
    second does, pays for being woken and for caches that others have used. `p50_over_busy_floor`: with a round trip
    and a forward in a loop without a pause instead. `p50_over_floor_server`: the three in one server, in each request.
    A machine that slows down for a moment makes requests wait for those before them, which the parts, each by itself
    far from their limit, do not show, and such a server does.
    """
    with asyncio.Runner() as runner:
        reader = AsyncOnlineReader(scorer.SPEC, of.redis.url, timeout_seconds=5.0)
        forward = scorer.bare_forward(of.student, reader, runner)
        runner.run(reader.close())
    calls = {"redis": scorer.redis_round_trip(of.redis.url, with_items=False), "forward": forward}
    samples: dict[str, list[float]] = {}

    def take(name: str, milliseconds: Iterable[float]) -> None:
        samples.setdefault(name, []).extend(milliseconds)

    with graft_serving(of) as (port, _):
        closed_loop(port, REQUESTS, 3.0)  # fills the memory
        with scorer.Client(port) as client:
            size = len(client.ask(BODIES[0]).partition(b"\r\n\r\n")[2])
        with echo_serving(of, size) as echo_port, floor_serving(of, size) as floor_port:
            servers = {"request": port, "echo": echo_port, "floor_server": floor_port}
            for _ in range(ROUNDS):
                for rate in RATES:
                    for name, at in servers.items():
                        outcome = constant_rate(at, REQUESTS, rate, WARM_UP_SECONDS + seconds / ROUNDS)
                        assert not outcome.failures
                        take(f"{name} {rate}", outcome.milliseconds)
                    with on_cores(of.cores[:1]):
                        for name, call in calls.items():
                            take(f"{name} {rate}", _at_rate(call, rate, seconds / ROUNDS))
                for name, call in calls.items():
                    take(f"busy {name}", np.multiply(scorer.timed(call, seconds / ROUNDS), 1e3).tolist())
    found: dict[str, Any] = {}
    for rate in RATES:
        rows: dict[str, Any] = {}
        for p in (50, 99):
            ms = {name: _percentile(samples[f"{name} {rate}"], p) for name in (*servers, *calls)}
            busy = {f"busy_{name}": _percentile(samples[f"busy {name}"], p) for name in calls}
            floor, busy_floor = (ms["echo"] + sum(part.values()) for part in ({n: ms[n] for n in calls}, busy))
            rows[f"p{p}_ms"] = {name: round(value, 4) for name, value in {**ms, **busy}.items()}
            rows[f"p{p}_over_floor"] = round(ms["request"] / floor, 3)
            rows[f"p{p}_over_busy_floor"] = round(ms["request"] / busy_floor, 3)
            rows[f"p{p}_over_floor_server"] = round(ms["request"] / ms["floor_server"], 3)
        found[f"{rate}/s"] = rows
    return found


def _at_rate(call: Callable[[bytes], Any], rate: float, seconds: float) -> list[float]:
    """Milliseconds of calls at fixed times, each from its begin; in between the process sleeps."""
    milliseconds = []
    first = time.perf_counter()
    for number in range(round(rate * seconds)):
        time.sleep(max(0.0, first + number / rate - time.perf_counter()))
        begin = time.perf_counter()
        call(BODIES[number % len(BODIES)])
        milliseconds.append((time.perf_counter() - begin) * 1e3)
    return milliseconds


def throughput(of: World, seconds: float) -> dict[str, Any]:
    """Requests a second in a closed loop of one worker on one core and of two on two, in turns; the median of each.

    Two workers share their cores with the client and Redis where there are only two. So the client is wrk, which is
    compiled and takes little of a core. Where it is not installed ours asks, and the ratio says little.
    """
    rates: dict[int, list[float]] = {1: [], 2: []}
    cpu_us: dict[int, list[float]] = {1: [], 2: []}
    client = "wrk" if shutil.which("wrk") else "python"
    ask = with_wrk if client == "wrk" else closed_loop
    for _ in range(THROUGHPUT_ROUNDS):
        for workers in (1, 2):
            cores = of.cores[-1:] if workers == 1 else of.cores
            with graft_serving(of, workers) as (port, process), on_cores(cores, of.redis.process.pid):
                ask(port, REQUESTS, 3.0)
                before = cpu_seconds(process)
                rate = ask(port, REQUESTS, seconds)
                rates[workers].append(rate)
                cpu_us[workers].append((cpu_seconds(process) - before) / (rate * seconds) * 1e6)
    found: dict[str, Any] = {
        f"{workers} worker{'s' * (workers > 1)}": {
            "requests_per_second": round(float(np.median(rates[workers]))),
            "of_each_round": [round(rate) for rate in rates[workers]],
            "server_cpu_us_per_request": round(float(np.median(cpu_us[workers])), 1),
        }
        for workers in rates
    }
    ratios = np.divide(rates[2], rates[1])
    found["workers_ratio"] = round(float(np.median(ratios)), 2)
    found["workers_ratio_of_each_round"] = [round(float(ratio), 2) for ratio in ratios]
    found["cores"] = len(of.cores)
    found["client"] = client
    return found


def _percentile(values: list[float], p: float) -> float:
    return float(np.percentile(values, p))
