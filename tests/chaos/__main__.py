"""`python -m tests.chaos --minutes 5 --seed 1 [--kills N]`: graft's processes under kills and outages.

Ends with 1 when something was lost, doubled, wrong or stuck. With KAFKA_HOME it runs on that Apache Kafka.
"""

import argparse
from pathlib import Path

from tests.chaos.plan import Options
from tests.chaos.report import report
from tests.chaos.run import run_chaos


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
    report(arguments.keep, lambda folder, kafka_home, tell: run_chaos(options, folder, kafka_home, tell))


if __name__ == "__main__":
    main()
