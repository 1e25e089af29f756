"""What an example costs the posterior, and what a version weighs, by how many ids are remembered.

    python benchmarks/id_tables.py [--ids 10000 100000 1000000] [--json FILE]

Both arms, one binary task, 8 dense columns of the item, micro-batches of 16, on one core. Half of the examples are of
ids that are known and half of new ones, each of which takes the place of the oldest. Each size takes its turn in every
round; the median round counts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from features.spec import Feature, FeatureSpec
from lab.machine import MACHINE
from stream.tasks import TaskSpec
from student.learn.posterior import Posterior
from student.learn.posterior_kernel import Rows
from student.learn.setup import LearnerSetup
from student.versions.config import StudentConfig

EXAMPLES, BATCH, DENSE, ROUNDS = 20_000, 16, 8, 5

SPEC = FeatureSpec(
    feast_project="p",
    user_join_key="u",
    item_join_key="i",
    user_id_type="int",
    item_id_type="int",
    entity_key_serialization_version=3,
    features=(
        Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
        Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
        Feature(name="v", source="item", role="embedding", dtype="float_list", default=[0.0] * DENSE),
    ),
)


def filled(ids: int) -> Posterior:
    """A posterior that remembers `ids` users and as many items."""
    task = TaskSpec(name="like", kind="binary", window_seconds=60)
    setup = LearnerSetup(SPEC, (task,), (), (), StudentConfig(remembered_ids=ids), 0.0)
    posterior = Posterior(setup, (True, False))
    for first in range(0, ids, 10_000):
        learn(posterior, np.arange(first, min(ids, first + 10_000)), np.random.default_rng(first))
    return posterior


def learn(posterior: Posterior, number_B: np.ndarray, random: np.random.Generator) -> None:
    """Learn a row of each of these users, with the item of the same number."""
    key_B = (number_B.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    count = len(number_B)
    rows = Rows(
        dense_MBD=np.broadcast_to(random.normal(size=(1, count, DENSE)), (2, count, DENSE)).astype(np.float32),
        network_MBK=np.zeros((2, count, 1), np.float32),
        label_BK=random.integers(0, 2, (count, 1)).astype(np.float32),
        logit_BT=np.zeros((count, 0), np.float32),
        weight_B=np.ones(count, np.float32),
    )
    posterior.learn(posterior.take(np.stack([key_B, key_B], axis=1)), rows)


def seconds_of(posterior: Posterior, ids: int, turn: int) -> float:
    """CPU time for `EXAMPLES`, the known ones from all that are remembered."""
    random = np.random.default_rng(turn)
    new_N = ids + turn * EXAMPLES + np.arange(EXAMPLES)
    number_N = np.where(random.random(EXAMPLES) < 0.5, random.integers(0, ids, EXAMPLES), new_N)
    started = time.process_time()
    for first in range(0, EXAMPLES, BATCH):
        learn(posterior, number_N[first : first + BATCH], random)
    return time.process_time() - started


def megabytes(tensors: Mapping[str, np.ndarray]) -> float:
    return sum(tensor.nbytes for tensor in tensors.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    posteriors = {ids: filled(ids) for ids in options.ids}
    turns: dict[int, list[float]] = {ids: [] for ids in options.ids}
    for turn in range(ROUNDS):
        for ids, posterior in posteriors.items():
            turns[ids].append(seconds_of(posterior, ids, turn))
    rows: list[dict[str, Any]] = []
    print("| ids remembered | examples/s | us an example | served MB | learner's MB |\n|---|---|---|---|---|")
    for ids, posterior in posteriors.items():
        served, whole = megabytes(posterior.served(0)), megabytes(posterior.tensors())
        seconds = statistics.median(turns[ids])
        rate, each = EXAMPLES / seconds, 1e6 * seconds / EXAMPLES
        print(f"| {ids:,} | {rate:,.0f} | {each:.1f} | {served:,.1f} | {whole:,.1f} |", flush=True)
        rows.append(
            {
                "ids": ids,
                "us_per_example": round(each, 2),
                "served_megabytes": round(served, 1),
                "learner_megabytes": round(whole, 1),
            }
        )
    if options.json:
        told = {"command": "python benchmarks/id_tables.py", "machine": MACHINE, "sizes": rows}
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
