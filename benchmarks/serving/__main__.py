"""What the scorer costs: over its floor and at its limit.

    python -m benchmarks.serving [floor] [throughput] [--seconds 20]

Without names all parts. Each part replaces its own figures in benchmarks/results/serving.json, with the
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

from benchmarks.serving.latency import over_floor, throughput
from benchmarks.serving.world import world
from lab.page import MACHINE

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
    return headline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("floor", "throughput")
    parser.add_argument("parts", nargs="*", default=parts, help=f"any of {', '.join(parts)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; allowed are {', '.join(parts)}")
    measure = {
        "floor": lambda of: over_floor(of, given.seconds),
        "throughput": lambda of: throughput(of, given.seconds),
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
