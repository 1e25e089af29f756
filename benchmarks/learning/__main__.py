"""How fast the whole learner learns, against the torch steps in it, on the same rows.

    python -m benchmarks.learning [--project fixtures/simulated] [--events N] [--rounds 3] [--json FILE]

The whole learner is `student.learn.process.train.run_training`: examples from embedded Kafka, decoded; logits from an
embedded Redis; progressive metrics, replay, both arms, every task, versions published. In memory it also learns the
rows without distillation, which shows what the teacher's signal costs. The bare torch steps are
as many for both arms, on the same rows, already tensors in memory: the same layers and heads in torch.nn and
torch.optim. Each takes its turn in every round; the median round counts. One core each. What River and Vowpal Wabbit
did on the same rows stands in docs/decisions/004-learner.md.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmarks.learning.in_memory import learner_in_memory
from benchmarks.learning.rows import Bench, Measured, load
from benchmarks.learning.table import BARE, WHOLE, report, result
from benchmarks.learning.torch_steps import own_steps, plain_steps, recorded_steps
from benchmarks.learning.whole import fill, send, whole_learner
from graft.project import load_project
from lab.embedded import EmbeddedKafka, EmbeddedRedis

DEFAULT_PROJECT = Path(__file__).parents[2] / "fixtures" / "simulated"

Turn = Callable[[], Measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    parser.add_argument("--events", type=int, help="only the first N examples")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.sparse.check_sparse_tensor_invariants.disable()  # said, so that torch does not warn
    bench = load(load_project(options.project), options.events)
    with ExitStack() as stack:
        turns = turns_of(bench, stack)
        measured: dict[str, list[Measured]] = {name: [] for name in turns}
        for _ in range(options.rounds):
            for name, turn in turns.items():
                measured[name].append(turn())
    report(bench, measured)
    if options.json:
        options.json.write_text(json.dumps(result(bench, measured), indent=2) + "\n")


def turns_of(bench: Bench, stack: ExitStack) -> dict[str, Turn]:
    """What is measured, by its name in the table."""
    steps = recorded_steps(bench)
    undistilled = bench._replace(setup=bench.setup.control())
    kafka, redis = stack.enter_context(EmbeddedKafka()), stack.enter_context(EmbeddedRedis())
    send(bench, kafka.servers)
    fill(bench, redis.url)
    return {
        WHOLE: lambda: whole_learner(bench, kafka.servers, redis.url),
        "learner, examples and logits in memory": lambda: learner_in_memory(bench),
        "its steps alone": lambda: own_steps(bench),
        BARE: lambda: plain_steps(bench, steps),
        "learner in memory, without distillation": lambda: learner_in_memory(undistilled),
    }


if __name__ == "__main__":
    with threadpool_limits(1):  # one BLAS thread, as in the learner (graft/__init__.py)
        main()
