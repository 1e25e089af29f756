"""What the scorer costs: over its floor, at its limit and beyond, while it swaps, and beside other servers.

    python -m benchmarks.serving [floor] [throughput] [profile] [engines] [overload] [swaps] [many-swaps] [peers]
        [--seconds 20] [--minutes 10] [--count 10000]

Without names all parts but the peers. Each part replaces its own figures in benchmarks/results/serving.json, with the
machine, the time it was given and the command. Nothing else may run on the machine: the server has the first core (two
workers: the first two), the client and Redis the last.
"""

import graft  # noqa: F401 - gives numpy one BLAS thread, as the scorer's process has

# isort: split
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving.engines import engines
from benchmarks.serving.latency import over_floor, overload, throughput
from benchmarks.serving.peers import beside_peers
from benchmarks.serving.profiling import profile
from benchmarks.serving.swapping import many_swaps, under_swaps
from benchmarks.serving.world import world
from lab.machine import MACHINE

RESULTS = Path(__file__).parents[1] / "results" / "serving.json"
HEADLINE_RATE = "200/s"


def _headline(results: dict[str, Any]) -> dict[str, Any]:
    """The figures that are asked for by name, of the parts that have been run."""
    headline: dict[str, Any] = {}
    if "floor" in results:
        at_rate = results["floor"]["found"][HEADLINE_RATE]
        headline |= {name: at_rate[name] for name in ("p50_over_floor", "p99_over_floor")}
    if "throughput" in results:
        headline["requests_per_second"] = results["throughput"]["found"]["1 worker"]["requests_per_second"]
    if "swaps" in results:
        headline["swap_p99_ratio"] = results["swaps"]["found"]["swap_p99_ratio"]
    if "peers" in results:
        headline["peers"] = results["peers"]["found"]
    return headline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("floor", "throughput", "profile", "engines", "overload", "swaps", "many-swaps", "peers")
    parser.add_argument("parts", nargs="*", default=parts[:-1], help=f"any of {', '.join(parts)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of floor, throughput, peers")
    parser.add_argument("--minutes", type=float, default=10.0, help="of swaps")
    parser.add_argument("--count", type=int, default=10_000, help="of many-swaps")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; allowed are {', '.join(parts)}")
    measure = {
        "floor": lambda of: over_floor(of, given.seconds),
        "throughput": lambda of: throughput(of, given.seconds),
        "profile": lambda of: profile(of, given.seconds),
        "engines": lambda of: engines(of, given.seconds),
        "overload": lambda of: overload(of, given.seconds),
        "swaps": lambda of: under_swaps(of, given.minutes),
        "many-swaps": lambda of: many_swaps(of, given.count),
        "peers": lambda of: beside_peers(of, given.seconds),
    }
    results = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() else {}
    command = " ".join(["python -m benchmarks.serving", *sys.argv[1:]])
    for part in given.parts:
        with world() as of:
            found = measure[part](of)
        load = round(os.getloadavg()[0], 1)
        results[part] = {"command": command, "machine": MACHINE, "load_average_1m": load, "found": found}
        print(json.dumps({part: found}, indent=1), flush=True)
        RESULTS.write_text(json.dumps({**_headline(results), "parts": results}, indent=1) + "\n")


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # numpy reads it when it is imported
        argv = [sys.executable, "-m", "benchmarks.serving", *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    main()
