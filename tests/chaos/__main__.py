"""`python -m tests.chaos [SEED]`: graft's processes under kills and outages, and what was lost.

Ends with 1 when something was lost, doubled, wrong or stuck. With KAFKA_HOME it runs on that Apache Kafka.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run_chaos
from tests.chaos.verdict import report


def main(seed: int = 1) -> None:
    """Run it in a temporary folder, and print the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a disk is unmounted
    with tempfile.TemporaryDirectory(prefix="graft-chaos-") as folder:
        lines = run_chaos(
            seed, Path(folder).resolve(), os.environ.get("KAFKA_HOME"), lambda text: print(text, flush=True)
        )
    print("\n".join(report(lines)))
    sys.exit(any(line.faults for line in lines))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
