"""Which table the ids are embedded in: a hashed one, or one that grows, in as many bytes.

    python benchmarks/id_tables.py [--project fixtures/simulated] [--events N] [--seeds 7 1 2]

A hashed table bounds memory by sharing rows: an id has the row of its hash. A growing one, as Monolith's (Liu et al.
2022), gives an id a row of its own when it was seen k times; when no row is free, that of the id seen longest ago. Ids
without a row read row 0. A row that is given to another id starts anew, in both
arms and their optimizers. Its bytes are the weights and a 64-bit key a row; the counts of ids without a row are exact
and not among them.

Each table is in a learner of its own, as the stream runs it: both arms, the same micro-batches and the teacher's
logits, with the default step whatever the project's. Every table takes its turn in the round of each seed.
"""

import argparse
import statistics
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from learner import DEFAULT_PROJECT, Bench, cpu_name, learn, load
from numpy.typing import NDArray

from features.spec import MISSING_HASH
from graft.project import load_project
from student.learn.batch import Batch
from student.learn.learner import Learner
from student.learn.replay_buffer import Reservoir
from student.learn.setup import LearnerSetup
from student.versions.config import StudentConfig
from student.versions.hashing import MISSING_ROW
from student.versions.served_tensors import EMBEDDING

ROW_BYTES = 4 * StudentConfig().embedding_dim
KEY_BYTES = 8
SHARES = (1, 2, 4, 8)
"""Growing tables have a row for one in so many of the distinct ids."""

SIGHTINGS = (1, 3, 10)
ARMS = ("student", "control")
STILL = 1e-12  # a learning rate must be above 0


class Table(NamedTuple):
    """One table: hashed, or growing where an id needs `sightings` for its row."""

    name: str
    rows: int
    sightings: int | None = None
    learning_rate: float = StudentConfig().embedding_learning_rate

    @property
    def bytes(self) -> int:
        """The bytes of the table in one version."""
        return self.rows * (ROW_BYTES + (KEY_BYTES if self.sightings else 0))


class Run(NamedTuple):
    """One turn of a table: AUC by arm, CPU seconds, and how often an id lost its row to another one."""

    auc: Mapping[str, float | None]
    seconds: float
    evictions: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    parser.add_argument("--events", type=int, help="only the first N examples")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = load(load_project(options.project), options.events)
    ids = distinct_ids(bench)
    runs: dict[Table, list[Run]] = {table: [] for table in tables(ids)}
    for seed in options.seeds:
        for table, done in runs.items():
            done.append(run(bench, table, seed))
    report(bench, ids, options.seeds, runs)


def distinct_ids(bench: Bench) -> int:
    """Values of the categorical features that are not missing."""
    spec = bench.setup.spec
    hashes = spec.encode(spec.columns_of([record.example.features for record in bench.records])).categorical_BC
    return len(np.setdiff1d(hashes, [MISSING_HASH]))


def tables(ids: int) -> Iterator[Table]:
    """The default table, with whose speed the others are compared; then the other tables, grouped by size."""
    default = StudentConfig().table_rows
    yield Table("hashed", default)
    yield Table("hashed, no row ever learns", default, learning_rate=STILL)
    for share in SHARES:
        rows = ids // share + 1
        yield Table("hashed", rows * (ROW_BYTES + KEY_BYTES) // ROW_BYTES)
        for sightings in SIGHTINGS:
            yield Table(f"growing, k = {sightings}", rows, sightings)


def run(bench: Bench, table: Table, seed: int) -> Run:
    """Everything learnt once with this table."""
    student = StudentConfig(
        table_rows=table.rows,
        embedding_learning_rate=table.learning_rate,
        max_wait_seconds=bench.setup.student.max_wait_seconds,
        seed=seed,
    )
    bench = bench._replace(setup=replace(bench.setup, student=student))
    growing = GrowingLearner(bench.setup, table.sightings) if table.sightings else None
    with mock.patch("student.learn.batch.embedding_rows", ids_in_place_of_rows) if growing else nullcontext():
        began = time.process_time()
        measured = learn(growing or Learner(bench.setup), bench)
        seconds = time.process_time() - began
    return Run(measured.auc, seconds, growing.table.evictions if growing else 0)


# The growing table.


class GrowingTable:
    """Which row an id has, of `rows` rows with row 0 for all that have none."""

    def __init__(self, rows: int, sightings: int) -> None:
        self.evictions = 0
        self._sightings = sightings
        self._row_of: OrderedDict[int, int] = OrderedDict()  # the id seen longest ago comes first
        self._seen: Counter[int] = Counter()  # of ids without a row
        self._free = list(range(rows - 1, MISSING_ROW, -1))

    def see(self, ids: Sequence[int]) -> list[int]:
        """Count the ids of new examples; the rows that belong to another id from now on."""
        given = []
        for one in ids:
            if one in self._row_of:
                self._row_of.move_to_end(one)
            elif one != MISSING_HASH and self._admits(one):
                self._row_of[one] = self._free.pop() if self._free else self._evict()
                given.append(self._row_of[one])
        return given

    def with_rows(self, batch: Batch) -> Batch:
        """The batch with each id's row in place of the id."""
        row_of = self._row_of.get
        rows = [row_of(one, MISSING_ROW) for one in batch.row_BC.ravel().tolist()]
        row_BC = np.array(rows, np.int64).reshape(batch.row_BC.shape)
        return Batch(batch.dense_BD, row_BC, batch.label_BK, batch.logit_BT)

    def _admits(self, one: int) -> bool:
        self._seen[one] += 1
        if self._seen[one] < self._sightings:
            return False
        del self._seen[one]
        return True

    def _evict(self) -> int:
        self.evictions += 1
        return self._row_of.popitem(last=False)[1]


class IdReservoir(Reservoir):
    """Keeps examples by their ids, which may have other rows by the time they are replayed."""

    def __init__(self, setup: LearnerSetup, table: GrowingTable) -> None:
        super().__init__(setup.student.replay_capacity, setup.student.seed)
        self._table = table

    def draw(self, count: int) -> Batch | None:
        """The examples that the learner's reservoir would draw, with the rows that their ids have now."""
        drawn = super().draw(count)
        return None if drawn is None else self._table.with_rows(drawn)


class GrowingLearner(Learner):
    """The learner with a growing table in front of its arms: its batches hold ids where the learner's hold rows."""

    def __init__(self, setup: LearnerSetup, sightings: int) -> None:
        super().__init__(setup)
        self.table = GrowingTable(setup.student.table_rows, sightings)
        self._reservoir = IdReservoir(setup, self.table)
        tensors = self.tensors()
        self._weights = [tensors[f"{arm}/weights/{EMBEDDING}"] for arm in ARMS]
        self._squares = [tensors[f"{arm}/adagrad/squares"] for arm in ARMS]
        self._fresh_RE = self._weights[0].copy()

    def _predictions(self, batch: Batch, item_ids: Sequence[Any]) -> NDArray[np.float32]:
        return super()._predictions(self.table.with_rows(batch), item_ids)

    def _step(self, batch: Batch, unshown: Batch | None) -> bool:
        assert unshown is None, "rows without an example have no sighting"
        given = self.table.see(batch.row_BC.ravel().tolist())
        for weight_RE, squares_R in zip(self._weights, self._squares, strict=True):
            weight_RE[given] = self._fresh_RE[given]
            squares_R[given] = 0
        return super()._step(self.table.with_rows(batch), unshown)


def ids_in_place_of_rows(categorical_BC: NDArray[np.uint64], _table_rows: int) -> NDArray[np.int64]:
    return categorical_BC.view(np.int64)


# The table of tables.


def report(bench: Bench, ids: int, seeds: Sequence[int], runs: Mapping[Table, Sequence[Run]]) -> None:
    step = StudentConfig()
    print(f"{bench.project.name}: {len(bench.records):,} examples, {ids:,} distinct ids, ", end="")
    print(f"{step.micro_batch} new and {step.replay_batches * step.micro_batch} replayed rows a step; ", end="")
    print(f"progressive AUC of `{bench.task}`, mean of the seeds {', '.join(map(str, seeds))}; ", end="")
    print(f"examples per second of CPU time; {cpu_name()}, torch {torch.__version__}\n")
    print("| memory | table | student | control | evictions | examples/s |\n|---|---|---|---|---|---|")
    first = next(iter(runs.values()))
    for table, turns in runs.items():
        speed = statistics.median(b.seconds / a.seconds for a, b in zip(turns, first, strict=True))
        cells = [
            f"{table.bytes / 1000:,.1f} kB",
            f"{table.name}, {table.rows:,} rows",
            *(f"{statistics.mean(aucs(turns, arm)):.4f}" for arm in ARMS),
            f"{turns[0].evictions:,}" if table.sightings else "-",
            f"{speed:.2f} x",
        ]
        print(f"| {' | '.join(cells)} |")
    spreads = [max(max(aucs(turns, arm)) - min(aucs(turns, arm)) for turns in runs.values()) for arm in ARMS]
    print(f"\nThe seeds of a table differ by up to {spreads[0]:.4f} (student) and {spreads[1]:.4f} (control).")


def aucs(turns: Sequence[Run], arm: str) -> list[float]:
    return [turn.auc[arm] or 0.0 for turn in turns]


if __name__ == "__main__":
    main()
