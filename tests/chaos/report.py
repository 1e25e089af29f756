"""How a run is told: its lines as they come, and the table at its end."""

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.verdict import Line, told

Tell = Callable[[str], None]


def report(keep: Path | None, run: Callable[[Path, str | None, Tell], list[Line]]) -> None:
    """Run it in a temporary folder, or in `keep`, on the Apache Kafka that KAFKA_HOME names or the embedded broker.

    Prints the table, and ends the program with 1 when a line has faults.
    """
    signal.signal(signal.SIGTERM, _end)  # so that a disk is unmounted
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graft-chaos-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines = run(folder.resolve(), os.environ.get("KAFKA_HOME"), _tell)
    failed = any(line.faults for line in lines)
    _tell(f"{'FAILED' if failed else 'all holds'} after {time.monotonic() - began:.0f} s")
    for line in told(lines):
        _tell(line)
    raise SystemExit(failed)


def _end(*_: object) -> None:
    raise SystemExit(143)


def _tell(text: str) -> None:
    print(text, flush=True)
