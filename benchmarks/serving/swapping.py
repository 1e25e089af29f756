"""What swaps cost: requests while a version is published each second, and the last of thousands of swaps."""

import asyncio
import gc
import threading
import time
from typing import Any

import numpy as np
import psutil

from benchmarks import scorer
from benchmarks.serving.load import closed_loop, constant_rate
from benchmarks.serving.world import BODIES, REQUESTS, World, graft_serving
from student.serve.sampling import Sampler
from student.serve.scoring import Scoring
from student.serve.swap import ChampionSwap

RATE = 200
BLOCK_SECONDS = 20.0
COMPARED = 1_000  # swaps at each end
LIVE_VERSIONS = 4


def under_swaps(of: World, minutes: float) -> dict[str, Any]:
    """Latency at a constant rate with a new champion each second, and without, in turns of 20 s.

    The scorer may use all cores: a version is loaded in a thread beside the requests.
    """
    samples: dict[bool, list[float]] = {True: [], False: []}
    _publish_more(of)
    swaps = 0
    with graft_serving(of, cores=of.cores) as (port, process):
        closed_loop(port, REQUESTS, 3.0)
        files = process.num_fds()
        for turn in range(max(2, 2 * round(minutes * 60 / BLOCK_SECONDS / 2))):
            swapping, stop = turn % 2 == 0, threading.Event()
            mover = threading.Thread(target=_move_champion, args=(of, stop))
            if swapping:
                mover.start()
                swaps += int(BLOCK_SECONDS)
            samples[swapping] += constant_rate(port, REQUESTS, RATE, BLOCK_SECONDS).milliseconds
            if swapping:
                stop.set()
                mover.join()
        files_after = process.num_fds()
    with_swaps, without = (np.percentile(samples[swapping], [50, 99]) for swapping in (True, False))
    return {
        "minutes": minutes,
        "rate": RATE,
        "swaps": swaps,
        "p50_ms": [round(float(with_swaps[0]), 4), round(float(without[0]), 4)],
        "p99_ms": [round(float(with_swaps[1]), 4), round(float(without[1]), 4)],
        "swap_p99_ratio": round(float(with_swaps[1] / without[1]), 3),
        "open_files": [files, files_after],
    }


def many_swaps(of: World, count: int) -> dict[str, Any]:
    """So many swaps one after another in this process, each followed by requests: the first 1,000 and the last."""
    return asyncio.run(_many_swaps(of, count))


async def _many_swaps(of: World, count: int) -> dict[str, Any]:
    versions = _publish_more(of)
    swap, process = ChampionSwap(of.registry, of.redis.url), psutil.Process()
    contract, scoring = scorer.RequestContract(scorer.SPEC), Scoring(Sampler(0.0))
    requests = [contract.parse(body) for body in BODIES]
    taken: list[float] = []
    memory: list[int] = []
    files: list[int] = []
    for number in range(count):
        of.registry.names.move("champion", versions[number % len(versions)], by="benchmark", why="")
        await swap.refresh()
        assert swap.current
        assert swap.current.version == versions[number % len(versions)]
        start = time.perf_counter()
        await scoring.score(swap.current, requests[number % len(requests)], None)
        taken.append(time.perf_counter() - start)
        if number % 50 == 0:
            gc.collect()
            memory.append(process.memory_info().rss)
            files.append(process.num_fds())
    await swap.close()
    compared = min(COMPARED, count // 3)
    of_memory = max(1, compared // 50)
    first, last = np.median(taken[:compared]), np.median(taken[-compared:])
    # The first swaps fill the allocator's arenas, so memory is compared from the end of the first 1,000 on.
    memory_first, memory_last = memory[of_memory], float(np.mean(memory[-of_memory:]))
    return {
        "swaps": count,
        "compared": compared,
        "request_p50_us": [round(float(first) * 1e6, 1), round(float(last) * 1e6, 1)],
        "latency_ratio": round(float(last / first), 4),
        "memory_mb": [round(memory_first / 1e6, 2), round(memory_last / 1e6, 2)],
        "memory_ratio": round(memory_last / memory_first, 4),
        "open_files": [files[1], files[-1]],
    }


def _publish_more(of: World) -> list[str]:
    while len(of.registry.versions()) < LIVE_VERSIONS:
        scorer.publish(of.registry)
    return of.registry.versions()


def _move_champion(of: World, stop: threading.Event) -> None:
    versions, number = of.registry.versions(), 0
    while not stop.wait(1.0):
        number += 1
        of.registry.names.move("champion", versions[number % len(versions)], by="benchmark", why="")
