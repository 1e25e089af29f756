"""`python -m tests.chaos --minutes 5 --seed 1 [--kills N]`: graft's processes under kills and outages.

Ends with 1 when something was lost, doubled, wrong or stuck. With KAFKA_HOME it runs on that Apache Kafka.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.chaos.plan import Options
from tests.chaos.run import run_chaos
from tests.chaos.verdict import told


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of traffic, with kills and troubles (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="draws traffic, kills and troubles (default: 1)")
    parser.add_argument("--kills", type=int, help="of kill -9 (default: one each 9 s)")
    parser.add_argument("--rate", type=float, default=10.0, help="impressions per second (default: 10)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run in this empty folder and leave it (logs)")
    arguments = parser.parse_args()
    options = Options(arguments.minutes * 60, arguments.seed, arguments.kills, arguments.rate)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graft-chaos-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines = run_chaos(options, folder.resolve(), os.environ.get("KAFKA_HOME"), lambda text: print(text, flush=True))
    failed = any(line.faults for line in lines)
    print(f"{'FAILED' if failed else 'all holds'} after {time.monotonic() - began:.0f} s", *told(lines), sep="\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
