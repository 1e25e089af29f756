"""What the example log costs: bytes on disk, writing and reading per example; and what its teacher logits add.

Run: python benchmarks/example_log.py [--examples 100000]
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from stream.archive import Archive
from stream.events import Example, UsedLogits, impression_mark
from stream.example_file import list_files
from stream.example_log import ExampleLog
from stream.examples import ExampleRecord
from stream.logged_logits import LoggedLogits
from stream.logit_archive import LogitArchive
from stream.logit_file import list_logit_files
from stream.used_logits import UsedRecord

FLUSH_EXAMPLES = 20_000  # the default of run_archive
PARTITIONS = 3
MS_BETWEEN = 2_000  # 43,200 examples a day
IN_A_RECORD = 64  # examples of a partition that a learner tells of at once
GENERATION = "0123456789abcdef"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    count = parser.parse_args().examples
    print(f"{count} examples in {PARTITIONS} partitions; CPU time of one core\n")
    print("| features | files | B/example | written examples/s | read examples/s |")
    print("|---|---|---|---|---|")
    for name, floats in (("12 floats", 0), ("12 floats, an embedding of 16", 16)):
        print(f"| {name} | " + " | ".join(measure(count, floats)) + " |", flush=True)
    print("\n| teacher tasks | files | B/example in Kafka | B/example | written examples/s | read examples/s |")
    print("|---|---|---|---|---|---|")
    for tasks in (1, 3):
        print(f"| {tasks} | " + " | ".join(measure_logits(count, tasks)) + " |", flush=True)


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


def measure_logits(count: int, tasks: int) -> list[str]:
    """Nine in ten examples have logits."""
    chance = random.Random(0)
    records = [ExampleRecord(n % PARTITIONS, n // PARTITIONS, example(n, chance, 0)) for n in range(count)]
    used = list(used_records(records, tasks, chance))
    kafka = sum(len(record.used.model_dump_json()) for record in used)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = time.process_time()
        archive = LogitArchive(folder, {}, None)
        for start in range(0, len(used), FLUSH_EXAMPLES // IN_A_RECORD):
            archive.add(used[start : start + FLUSH_EXAMPLES // IN_A_RECORD])
            archive.flush()
        written = time.process_time() - written
        read = time.process_time()
        log = LoggedLogits(folder, GENERATION)
        found = sum(one is not None for start in range(0, count, 128) for one in log.of(records[start : start + 128]))
        read = time.process_time() - read
        assert found == count
        files = list_logit_files(folder)
        size = sum(file.path.stat().st_size for file in files)
    rates = [f"{count / written:,.0f}", f"{count / read:,.0f}"]
    return [str(len(files)), f"{kafka / count:.0f}", f"{size / count:.1f}", *rates]


def used_records(records: list[ExampleRecord], tasks: int, chance: random.Random) -> list[UsedRecord]:
    """What a learner would have told of these, in the order of the topic."""
    found = []
    for partition in range(PARTITIONS):
        own = [record for record in records if record.partition == partition]
        for place, start in enumerate(range(0, len(own), IN_A_RECORD)):
            part = own[start : start + IN_A_RECORD]
            logits = [None if chance.random() < 0.1 else [single(chance) for _ in range(tasks)] for _ in part]
            used = UsedLogits(
                topic_id="5a1f0c4e-0000-0000-0000-000000000000",
                learner="0123456789abcdef",
                generation=GENERATION,
                offsets=[record.offset for record in part],
                impressions=[impression_mark(record.example.impression_id) for record in part],
                logits=logits,
            )
            found.append((place, UsedRecord(partition, place, used)))
    return [record for _, record in sorted(found, key=lambda one: one[0])]


def single(chance: random.Random) -> float:
    """A number of 32 bits, as a float."""
    return float(np.float32(chance.gauss(0, 2)))


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
