"""`python -m tests.simulation N [FIRST]`: runs N schedules, of the seeds from FIRST on, on all cores.

Ends with 1 at the first seeds that fail, each told with its shrunk schedule.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.seeds import failing, failure_of

_AT_ONCE = 200


def main() -> None:
    """Run them, with a line every few seconds."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = told = time.monotonic()
    ranges = [range(at, min(at + _AT_ONCE, first + count)) for at in range(first, first + count, _AT_ONCE)]
    done, found = 0, list[int]()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for seeds, failed in zip(ranges, pool.map(failing, ranges), strict=True):
            done += len(seeds)
            found += failed
            for seed in failed:
                print(failure_of(seed), flush=True)
            if time.monotonic() > told + 10:
                told = time.monotonic()
                print(f"{done} of {count} schedules, {len(found)} failed, {told - began:.0f} s", flush=True)
    print(f"{done} schedules from seed {first} on, {len(found)} failed, {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
