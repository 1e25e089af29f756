"""What an example costs the posterior, and what a version weighs, by how many ids are remembered.

    python benchmarks/id_tables.py [--ids 10000 100000 1000000]

Both arms, one binary task, 8 dense columns of the item, micro-batches of 16, on one core. Half of the examples are of
ids that are known and half of new ones, each of which takes the place of the oldest.
"""

import argparse
import time

import numpy as np

from features.spec import Feature, FeatureSpec
from stream.tasks import TaskSpec
from student.learn.posterior import Posterior
from student.learn.posterior_kernel import Rows
from student.learn.setup import LearnerSetup
from student.versions.config import StudentConfig

EXAMPLES, BATCH, DENSE = 20_000, 16, 8

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
    )
    posterior.learn(np.stack([key_B, key_B], axis=1), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    print("| ids remembered | examples/s | us an example | served MB | learner's MB |\n|---|---|---|---|---|")
    for ids in parser.parse_args().ids:
        posterior, random = filled(ids), np.random.default_rng(0)
        number_N = np.where(random.random(EXAMPLES) < 0.5, random.integers(0, ids, EXAMPLES), ids + np.arange(EXAMPLES))
        started = time.process_time()
        for first in range(0, EXAMPLES, BATCH):
            learn(posterior, number_N[first : first + BATCH], random)
        seconds = time.process_time() - started
        served, whole = (
            sum(tensor.nbytes for tensor in tensors.values()) / 1e6
            for tensors in (posterior.served(0), posterior.tensors())
        )
        rate, each = EXAMPLES / seconds, 1e6 * seconds / EXAMPLES
        print(f"| {ids:,} | {rate:,.0f} | {each:.1f} | {served:,.1f} | {whole:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
