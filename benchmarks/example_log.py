"""What the example log costs: bytes on disk, writing and reading per example.

Run: python benchmarks/example_log.py [--examples 100000]
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from stream.archive import Archive
from stream.events import Example
from stream.example_file import list_files
from stream.example_log import ExampleLog
from stream.examples import ExampleRecord

FLUSH_EXAMPLES = 20_000  # the default of run_archive
PARTITIONS = 3
MS_BETWEEN = 2_000  # 43,200 examples a day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    count = parser.parse_args().examples
    print(f"{count} examples in {PARTITIONS} partitions; CPU time of one core\n")
    print("| features | files | B/example | written examples/s | read examples/s |")
    print("|---|---|---|---|---|")
    for name, floats in (("12 floats", 0), ("12 floats, an embedding of 16", 16)):
        print(f"| {name} | " + " | ".join(measure(count, floats)) + " |", flush=True)


def measure(count: int, embedding: int) -> list[str]:
    chance = random.Random(0)
    records = [ExampleRecord(n % PARTITIONS, n // PARTITIONS, example(n, chance, embedding)) for n in range(count)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = time.process_time()
        archive = Archive(folder, {})
        for start in range(0, count, FLUSH_EXAMPLES):
            archive.add(records[start : start + FLUSH_EXAMPLES])
            archive.flush()
        written = time.process_time() - written
        del records
        read = time.process_time()
        found = sum(map(len, ExampleLog(folder).read({})))
        read = time.process_time() - read
        assert found == count
        files = list_files(folder)
        size = sum(file.path.stat().st_size for file in files)
    return [str(len(files)), f"{size / count:.0f}", f"{count / written:,.0f}", f"{count / read:,.0f}"]


def example(n: int, chance: random.Random, embedding: int) -> Example:
    floats = [chance.random() for _ in range(12)]
    vectors = [[chance.random() for _ in range(embedding)]] if embedding else []
    return Example(
        impression_id=f"impression-{n:08d}",
        user_id=chance.randrange(10**6),
        item_id=f"item{n % 5000}",
        event_time_ms=1_600_000_000_000 + n * MS_BETWEEN,
        context={"hour": n % 24, "device": "phone"},
        spec_id="0123456789abcdef",
        features=["phone", n % 9, None, *floats, *vectors],
        labels={"like": float(n % 2), "finish": 0.0, "rating": None},
    )


if __name__ == "__main__":
    main()
