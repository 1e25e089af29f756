"""What each process takes at rest and under load: memory and processor time, as `graft dev` runs them.

At rest: all is ready, for --rest-seconds before the first event, with the 5 requests/s of `graft dev` alone. Under
load: from the first event until all are learnt, sent as fast as they are read. Memory is PSS, what a process has for
itself and its share of what several map: the largest of two samples a second. With EMBEDDED_KAFKA_HOME Kafka is an
Apache Kafka.

python benchmarks/memory.py [--events 60000]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from lab.apache_kafka import HOME
from lab.dev.run import Options, run_dev
from lab.machine import MACHINE

RESULTS = Path(__file__).with_name("results") / "memory.json"
_EVERY_SECONDS = 0.5
_KINDS = {
    "stream run": "stream",
    "teacher run": "teacher",
    "student train": "learner",
    "student serve": "scorer",
    "kafka.Kafka": "Kafka",
    "noida": "Kafka",
    "valkey-server": "Redis",
    "redis-server": "Redis",
}


class Taken:
    """The largest PSS of each process that was sampled, in bytes, and its processor seconds between two samples."""

    def __init__(self) -> None:
        self.pss: dict[str, int] = {}
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._began = self._ended = time.monotonic()

    def sample(self) -> None:
        """One look at every process; one that has just ended is passed over."""
        for process in psutil.Process().children(recursive=True):
            try:
                name, pss = _kind(process), process.memory_full_info().pss
                used = sum(process.cpu_times()[:2])
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if name:
                self.pss[name] = max(pss, self.pss.get(name, 0))
                self._first.setdefault(name, used)
                self._last[name] = used
        self._ended = time.monotonic()

    def table(self) -> dict[str, dict[str, float]]:
        """MiB, and processor seconds a second, by process."""
        seconds = self._ended - self._began
        return {
            name: {
                "mib": round(self.pss[name] / 2**20),
                "cores": round((self._last[name] - self._first[name]) / seconds, 3),
            }
            for name in dict.fromkeys(_KINDS.values())
            if name in self.pss
        }


def _kind(process: psutil.Process) -> str | None:
    """Which of the path's processes this is; None for another one, such as the replay."""
    command = " ".join(process.cmdline())
    return next((name for part, name in _KINDS.items() if part in command), None)


class Watch:
    """Told by `graft dev` that all is ready: samples the rest at once, then the load until it is closed."""

    def __init__(self, rest_seconds: float) -> None:
        self.rest, self.load = Taken(), Taken()
        self.load_seconds = 0.0
        self._rest_seconds = rest_seconds
        self._loaded_at = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._sample_load, daemon=True)

    def ready(self, _: str) -> None:
        """No event is sent before this returns."""
        self.rest = Taken()
        until = time.monotonic() + self._rest_seconds
        while time.monotonic() < until:
            self.rest.sample()
            time.sleep(_EVERY_SECONDS)
        self.load, self._loaded_at = Taken(), time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """The load is over."""
        self.load_seconds = time.monotonic() - self._loaded_at
        self._ends.set()
        self._thread.join()

    def _sample_load(self) -> None:
        while not self._ends.is_set():
            self.load.sample()
            self._ends.wait(_EVERY_SECONDS)


def main() -> None:
    """Make the pair, run it, write results/memory.json and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=60_000, help="impressions")
    parser.add_argument("--rest-seconds", type=float, default=30.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pair = _made(Path(folder) / "pair", chosen.events)
        watch = Watch(chosen.rest_seconds)
        view = run_dev(Options(pair, ends=True), dict(os.environ), Console(stderr=True), watch.ready)
        watch.close()
    result = {
        "command": f"python benchmarks/memory.py --events {chosen.events}",
        "machine": MACHINE,
        "kafka": "Apache Kafka" if os.environ.get(HOME) else "noida-db",
        "events": view.events,
        "events_per_second": round(view.events / watch.load_seconds),
        "rest": watch.rest.table(),
        "load": watch.load.table(),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(*table(result), sep="\n")


def table(result: dict[str, Any]) -> Iterator[str]:
    """The lines of the table in docs/operations.md."""
    yield f"| process | MiB at rest | core at rest | MiB at {result['events_per_second']:,} events/s | core |"
    yield "|---|---|---|---|---|"
    for name, rest in result["rest"].items():
        load = result["load"][name]
        cells = (f"{taken['mib']} | {100 * taken['cores']:.1f} %" for taken in (rest, load))
        yield f"| {name} | {' | '.join(cells)} |"


def _made(folder: Path, events: int) -> Path:
    for arguments in (["make", "simulated", str(folder), "--events", str(events)], ["train-teacher", str(folder)]):
        subprocess.run([sys.executable, "-m", "graft", "pair", *arguments], check=True, stdout=sys.stderr)
    return folder


if __name__ == "__main__":
    main()
