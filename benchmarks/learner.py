"""How fast the whole learner learns: against the torch steps in it, River and Vowpal Wabbit, on the same rows.

    python benchmarks/learner.py [--project fixtures/simulated] [--events N] [--rounds 3] [--json FILE]

The whole learner is `student.learn.train.run_training`: examples from embedded Kafka, decoded; logits from an embedded
Redis; progressive metrics, replay, both arms, every task, versions published. In memory it also learns the rows without
distillation, and with unshown rows, which shows what the teacher's signal costs. The bare torch steps are as
many for both arms, on the same rows, already tensors in memory: the same layers and heads in torch.nn and torch.optim.
River and Vowpal Wabbit learn one binary task, one row at a time, from encoded features in memory (River) or in a file
(VW). Each takes its turn in every round; the median round counts. One core each.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from features.spec import FeatureSpec
from features.store import compile_spec, view_sources
from graft.progress import progress
from graft.project import Project, load_project
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from lab.machine import MACHINE
from lab.study.log_in_memory import records_of
from lab.study.memory_store import Sources
from runtime.telemetry import StopSignal
from stream import connection
from stream.events import Example, TeacherRequest
from stream.examples import ExampleReader, ExampleRecord
from stream.topics import ensure_topics
from stream.used_logits import UsedLogitsWriter
from student.evaluate.metrics import exact_auc
from student.learn.arm import Arm, Gradient
from student.learn.batch import Batch
from student.learn.learner import Learner
from student.learn.model import Shape
from student.learn.setup import LearnerSetup
from student.learn.train import run_training
from student.versions.hashing import embedding_rows
from student.versions.manifest import Metrics
from student.versions.registry import Registry
from teacher_cache.cache import LogitCache
from teacher_cache.config import UnshownConfig
from teacher_cache.context_key import ContextKey
from teacher_cache.domain_map import DomainMap
from teacher_cache.request_scorer import RequestScorer
from teacher_cache.teacher import load_teacher
from teacher_cache.unshown import UnshownRows, UnshownSampler

DEFAULT_PROJECT = Path(__file__).parent.parent / "fixtures" / "simulated"
NO_REDIS = "redis://127.0.0.1:6379/0"  # part of Feast's configuration; nothing connects to it
PARTITION = 0
WHOLE, BARE = "whole learner", "bare torch.nn and torch.optim steps"
UNSHOWN_RATIO = 3  # as in the study's grid


class Bench(NamedTuple):
    """One pair's rows: the learner's setup, N examples in their order, and the teacher's logits of them."""

    project: Project
    setup: LearnerSetup
    records: Sequence[ExampleRecord]
    logit_NT: NDArray[np.float32]
    scorer: RequestScorer

    @property
    def task(self) -> str:
        """The binary task whose AUC is printed."""
        return next(task.name for task in self.setup.tasks if task.kind == "binary")

    def micro_batches(self) -> Iterator[tuple[list[Any], Any]]:
        """The examples, as many at a time as a step has, with their logits."""
        size = self.setup.student.micro_batch
        for first in range(0, len(self.records), size):
            rows = slice(first, first + size)
            yield [record.example for record in self.records[rows]], self.logit_NT[rows]


class Spent(NamedTuple):
    """Seconds by the clock, and of this process's CPU time, which a busy machine distorts less."""

    wall: float
    cpu: float


def now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def since(began: Spent) -> Spent:
    return Spent(*(end - start for start, end in zip(began, now(), strict=True)))


class Measured(NamedTuple):
    """One turn: what it took, the examples learnt in it, and the AUC on the task of each arm or library."""

    spent: Spent
    examples: int
    auc: Mapping[str, float | None] = {}


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
        turns, absent = turns_of(bench, stack)
        measured: dict[str, list[Measured]] = {name: [] for name in turns}
        for _ in range(options.rounds):
            for name, turn in turns.items():
                measured[name].append(turn())
    report(bench, measured, absent)
    if options.json:
        options.json.write_text(json.dumps(result(bench, measured), indent=2) + "\n")


def load(project: Project, events: int | None) -> Bench:
    """The project's own events, joined as the stream joins them, and scored by its teacher."""
    spec, views = compile_spec(project.repo, NO_REDIS, project.features), view_sources(project.repo, NO_REDIS)
    sources = Sources({v: (t.path, t.join_key, t.timestamp_field) for v, t in views.tables.items()}, views.pushed)
    with progress("joining") as advance:
        joined = records_of(project, spec, sources, project.folder / "events.jsonl", advance)
        records = list(islice(joined, events))
    setup = project.learner_setup(spec)
    scorer = scorer_of(project, spec)
    return Bench(project, setup, records, teacher_logits(scorer, [record.example for record in records]), scorer)


def scorer_of(project: Project, spec: FeatureSpec) -> RequestScorer:
    """The scorer that the batch scorer uses."""
    teacher = load_teacher(project.teacher, project.folder)
    return RequestScorer(teacher, DomainMap(project.teacher, project.folder, teacher, spec), spec)


def requests_of(examples: Iterable[Example]) -> list[TeacherRequest]:
    return [TeacherRequest.model_construct(**example.__dict__) for example in examples]


def teacher_logits(scorer: RequestScorer, examples: Iterable[Example]) -> NDArray[np.float32]:
    """What the batch scorer would put into the cache."""
    requests = requests_of(examples)
    scored = scorer.score(requests)
    assert scored is not None
    assert len(scored.logit_BT) == len(requests)
    return scored.logit_BT


def turns_of(bench: Bench, stack: ExitStack) -> tuple[dict[str, Turn], list[str]]:
    """What is measured, by its name in the table; and a line for each that is not installed."""
    steps, unshown = recorded_steps(bench), unshown_rows(bench)
    undistilled = bench._replace(setup=bench.setup.control())
    kafka, redis = stack.enter_context(EmbeddedKafka()), stack.enter_context(EmbeddedRedis())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    send(bench, kafka.servers)
    fill(bench, redis.url)
    turns: dict[str, Turn] = {
        WHOLE: lambda: whole_learner(bench, kafka.servers, redis.url),
        "learner, examples and logits in memory": lambda: learner_in_memory(bench),
        "its steps alone": lambda: own_steps(bench),
        BARE: lambda: plain_steps(bench, steps),
        "learner in memory, without distillation": lambda: learner_in_memory(undistilled),
        f"learner in memory, {UNSHOWN_RATIO} unshown rows an example": lambda: learner_in_memory(bench, unshown),
    }
    rows, absent = Rows(bench), []
    for package, name, turn in (
        ("river", "River logistic regression", river_regression),
        ("vowpalwabbit", "Vowpal Wabbit, logistic", lambda rows: vowpal_wabbit(rows, folder)),
    ):
        try:
            turns[f"{name} ({version(package)})"] = lambda turn=turn: turn(rows)
        except ModuleNotFoundError:
            absent.append(f"{name}: not measured, {package} is not installed: pip install 'graft[bench]'")
    return turns, absent


# The whole learner.


def send(bench: Bench, kafka_servers: str) -> None:
    """Every example as the stream writes it."""
    ensure_topics(kafka_servers, bench.project.stream.model_copy(update={"partitions": 1}), bench.project.topics)
    producer = connection.producer(kafka_servers)
    for record in bench.records:
        value = record.example.model_dump_json().encode()
        producer.send(bench.project.topics.examples, value, partition=PARTITION)
    producer.flush()
    producer.close()


def cache_of(bench: Bench, redis_url: str) -> LogitCache:
    names = [task.name for task in bench.setup.teacher_tasks]
    context = ContextKey.seen_by(bench.project.teacher, bench.setup.spec)
    return LogitCache(redis_url, "bench", names, bench.project.teacher.ttl_seconds, context)


def fill(bench: Bench, redis_url: str) -> None:
    """The teacher's logits of every row."""
    examples = [record.example for record in bench.records]
    cache = cache_of(bench, redis_url)
    cache.put(cache.keys_of(examples), bench.logit_NT, time.time_ns() // 1_000_000)


class WholeTopic(ExampleReader):
    """Ends the learning when the topic is learnt; measures from the first poll to then."""

    def __init__(self, bench: Bench, kafka_servers: str, offsets: Mapping[int, int], stop: StopSignal) -> None:
        super().__init__(kafka_servers, bench.project.topics, offsets)
        self._left, self._stop = len(bench.records), stop
        self.began: Spent | None = None
        self.spent = Spent(0.0, 0.0)

    def poll(self, timeout_seconds: float) -> list[ExampleRecord]:
        """The reader's next records; sets the stop when all records have been given and learnt."""
        self.began = self.began or now()
        if not self._left:
            self.spent = since(self.began)
            self._stop.set()
            return []
        records = super().poll(timeout_seconds)
        self._left -= len(records)
        return records


def whole_learner(bench: Bench, kafka_servers: str, redis_url: str) -> Measured:
    stop, sources = StopSignal(), []

    def open_source(offsets: Mapping[int, int]) -> WholeTopic:
        sources.append(WholeTopic(bench, kafka_servers, offsets, stop))
        return sources[-1]

    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        run_training(
            setup=bench.setup,
            publish=bench.project.publish,
            teacher_version=None,
            registry=registry,
            cache=cache_of(bench, redis_url),
            open_used=lambda learner: UsedLogitsWriter(
                kafka_servers, bench.project.topics, learner=learner, generation="benchmark", topic_id=None
            ),
            open_source=open_source,
            stop=stop,
        )
        manifest = registry.load_manifest(registry.latest() or "")
    return Measured(sources[0].spent, manifest.examples, auc_by_arm(bench, manifest.metrics))


def auc_by_arm(bench: Bench, metrics: Metrics) -> dict[str, float | None]:
    return {arm: of_arm.auc for arm, of_arm in metrics[bench.task].items()}


# The learner in memory.


def unshown_rows(bench: Bench) -> list[UnshownRows | None]:
    """Those of every micro-batch, made and scored as in the batch scorer."""
    sampler = UnshownSampler(bench.setup.spec, UnshownConfig(ratio=UNSHOWN_RATIO))
    scored = [bench.scorer.score(sampler.sample(requests_of(examples))) for examples, _ in bench.micro_batches()]
    return [rows and UnshownRows([row.features for row in rows.requests], rows.logit_BT) for rows in scored]


def learner_in_memory(bench: Bench, unshown: Sequence[UnshownRows | None] | None = None) -> Measured:
    """Without Kafka, Redis, JSON and versions."""
    return learn(Learner(bench.setup), bench, unshown)


def learn(learner: Learner, bench: Bench, unshown: Sequence[UnshownRows | None] | None = None) -> Measured:
    """All examples, by a learner that has learnt none; `unshown` has rows for each micro-batch."""
    batches = list(bench.micro_batches())
    unshown = unshown or [None] * len(batches)
    began = now()
    for (examples, logit_BT), rows in zip(batches, unshown, strict=True):
        learner.learn(examples, logit_BT, rows)
    spent = since(began)
    return Measured(spent, learner.examples, auc_by_arm(bench, learner.evaluation.whole()))


# The torch steps alone.


class Step(NamedTuple):
    """A step that an arm took: its rows as tensors in memory."""

    shape: Shape
    dense_BD: Tensor
    row_BC: Tensor
    label_KB: Sequence[Tensor]
    logit_AB: Sequence[Tensor]


def recorded_steps(bench: Bench) -> list[Step]:
    """Every step of both arms over the whole log, in order."""
    steps, take = [], Arm.gradient

    def recorded(arm: Arm, rows: Batch, *rest: Any) -> Gradient:
        columns = bench.setup.teacher_columns if arm.student.shape.distillation else ()
        logit_AB = [torch.from_numpy(rows.logit_BT[:, column]) for column in columns]
        row_BC = torch.from_numpy(embedding_rows(rows.category_BC, arm.student.shape.config.table_rows))
        dense_BD = torch.from_numpy(rows.dense_BD)
        steps.append(Step(arm.student.shape, dense_BD, row_BC, torch.from_numpy(rows.label_BK).unbind(1), logit_AB))
        return take(arm, rows, *rest)

    with mock.patch.object(Arm, "gradient", recorded):
        learner_in_memory(bench)
    return steps


def own_steps(bench: Bench) -> Measured:
    """The time within the steps of the learner's own arms."""
    turns: list[Spent] = []

    def timed(part: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            began = now()
            result = part(*arguments)
            turns.append(since(began))
            return result

        return wrapper

    gradient, descend = timed(Arm.gradient), timed(Arm.descend)
    with mock.patch.object(Arm, "gradient", gradient), mock.patch.object(Arm, "descend", descend):
        return learner_in_memory(bench)._replace(spent=Spent(*map(sum, zip(*turns, strict=True))))


class PlainStudent(nn.Module):
    """The same layers in plain torch.nn."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config, layers = shape.config, []
        self.embedding = nn.Embedding(config.table_rows, config.embedding_dim, sparse=True)
        width = shape.dense_width + shape.categorical_width * config.embedding_dim
        for out in config.trunk:
            layers += [nn.Linear(width, out), nn.ReLU()]
            width = out
        self.trunk = nn.Sequential(*layers)
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(width, config.tower), nn.ReLU()) for _ in shape.tasks)
        self.heads = nn.ModuleList(nn.Linear(config.tower, 1) for _ in shape.tasks)
        names = [task.name for task in shape.tasks]
        self.twins = [names.index(d.student_task) if d.student_task else 0 for d in shape.distillation]
        self.teacher_heads = nn.ModuleList(nn.Linear(config.tower, 1) for _ in shape.distillation)

    def forward(self, dense_BD: Tensor, row_BC: Tensor) -> list[Tensor]:
        """Every head's value per row, the served ones first."""
        hidden_BH = self.trunk(torch.cat([dense_BD, self.embedding(row_BC).flatten(1)], 1))
        towers = [tower(hidden_BH) for tower in self.towers]
        served = [head(tower).squeeze(1) for head, tower in zip(self.heads, towers, strict=True)]
        heads = zip(self.teacher_heads, self.twins, strict=True)
        return served + [head(towers[twin]).squeeze(1) for head, twin in heads]


class PlainArm:
    """The same step with torch's own optimizers."""

    def __init__(self, shape: Shape, kinds: Sequence[str]) -> None:
        self._student, self._kinds = PlainStudent(shape), kinds
        dense = [weight for name, weight in self._student.named_parameters() if name != "embedding.weight"]
        self._optimizers = (
            torch.optim.Adam(dense, shape.config.learning_rate),
            torch.optim.Adagrad(self._student.embedding.parameters(), shape.config.embedding_learning_rate),
        )

    def step(self, step: Step) -> None:
        """Forward, backward, and both optimizers."""
        values = self._student(step.dense_BD, step.row_BC)
        targets = [*step.label_KB, *step.logit_AB]
        losses = [self._loss(*head) for head in zip(self._kinds[: len(values)], values, targets, strict=True)]
        loss = torch.stack(losses).sum()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()

    @staticmethod
    def _loss(kind: str, value_B: Tensor, target_B: Tensor) -> Tensor:
        present_B = ~target_B.isnan()
        measure = functional.binary_cross_entropy_with_logits if kind == "binary" else functional.mse_loss
        loss_B = measure(value_B, target_B.nan_to_num(), reduction="none")
        return (loss_B * present_B).sum() / present_B.sum().clamp(min=1)


def plain_steps(bench: Bench, steps: Sequence[Step]) -> Measured:
    """Every step again, its rows already tensors in memory."""
    kinds = [*(task.kind for task in bench.setup.tasks), *("regression" for _ in bench.setup.distillation)]
    arms = {bool(step.shape.distillation): PlainArm(step.shape, kinds) for step in steps[:2]}
    for step in steps[:2]:
        arms[bool(step.shape.distillation)].step(step)  # the first step of torch.optim imports its compiler
    began = now()
    for step in steps:
        arms[bool(step.shape.distillation)].step(step)
    return Measured(since(began), sum(len(batch) for batch, _ in bench.micro_batches()))


# One row at a time.


class Rows:
    """The encoded features of every example that has a label of the task, one row each."""

    def __init__(self, bench: Bench) -> None:
        spec = bench.setup.spec
        labelled = [r.example for r in bench.records if r.example.labels[bench.task] is not None]
        encoded = spec.encode(spec.columns_of([example.features for example in labelled]))
        self.labels = [bool(example.labels[bench.task]) for example in labelled]
        self.dense = [dict(zip(spec.dense_names, row, strict=True)) for row in encoded.dense_BD.tolist()]
        self.categories = [[f"{c}={h}" for c, h in enumerate(row)] for row in encoded.categorical_BC.tolist()]

    def measured(self, spent: Spent, scores: Iterable[float]) -> Measured:
        """The measurement, with the AUC of the scores, one for each row."""
        label_N, score_N = np.array(self.labels, np.float32), np.fromiter(scores, np.float32)
        return Measured(spent, len(self.labels), {"": exact_auc(label_N, score_N)})


def river_regression(rows: Rows) -> Measured:
    """Dense features scaled by their running moments, categories one-hot; Adagrad, which does better than its SGD."""
    from river import linear_model, optim, preprocessing  # noqa: PLC0415 of the group `bench`

    scaler = preprocessing.StandardScaler()
    model = linear_model.LogisticRegression(optim.AdaGrad(0.05))
    scores = []
    began = now()
    for dense, categories, label in zip(rows.dense, rows.categories, rows.labels, strict=True):
        scaler.learn_one(dense)
        features = {**scaler.transform_one(dense), **dict.fromkeys(categories, 1.0)}
        scores.append(model.predict_proba_one(features).get(True, 0.5))
        model.learn_one(features, label)
    return rows.measured(since(began), scores)


def vowpal_wabbit(rows: Rows, folder: Path) -> Measured:
    """VW's own reader and learner: every row is predicted, then learnt; its defaults but for the loss."""
    from vowpalwabbit import Workspace  # noqa: PLC0415 of the group `bench`

    data, predictions = folder / "rows.vw", folder / "predictions"
    if not data.exists():
        data.write_text("".join(vw_lines(rows)))
    began = now()
    Workspace(f"--quiet --loss_function logistic -b 20 -d {data} -p {predictions}").finish()
    return rows.measured(since(began), map(float, predictions.read_text().split()))


def vw_lines(rows: Rows) -> Iterator[str]:
    for dense, categories, label in zip(rows.dense, rows.categories, rows.labels, strict=True):
        numbers = " ".join(f"{i}:{value:.7g}" for i, value in enumerate(dense.values()))
        yield f"{1 if label else -1} |d {numbers} |c {' '.join(categories)}\n"


# The table.


def report(bench: Bench, measured: Mapping[str, Sequence[Measured]], absent: Iterable[str]) -> None:
    config = bench.setup.student
    speeds, cpu = median_speeds(measured), median_cpu(measured)
    whole = speeds[WHOLE]
    print(f"{bench.project.name}: {len(bench.records):,} examples, {len(bench.setup.tasks)} tasks, ", end="")
    print(f"{len(bench.setup.distillation)} distilled, {config.micro_batch} new and ", end="")
    print(
        f"{config.replay_batches * config.micro_batch} replayed rows a step; {cpu_name()}, torch {torch.__version__}\n"
    )
    print(f"| learns | examples/s | the whole learner is | CPU us an example | progressive AUC of `{bench.task}` |")
    print("|---|---|---|---|---|")
    for name, turns in measured.items():
        aucs = ", ".join(f"{arm} {auc:.3f}".strip() for arm, auc in turns[0].auc.items() if auc is not None)
        print(f"| {name} | {speeds[name]:,.0f} | {whole / speeds[name]:.2f} x | {cpu[name]:.0f} | {aucs} |")
    for line in absent:
        print(f"\n{line}")


def median_speeds(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Examples a second by the clock."""
    return {name: statistics.median(m.examples / m.spent.wall for m in turns) for name, turns in measured.items()}


def median_cpu(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Microseconds of CPU time an example."""
    return {name: statistics.median(1e6 * m.spent.cpu / m.examples for m in turns) for name, turns in measured.items()}


def result(bench: Bench, measured: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """What benchmarks/results keeps."""
    speeds, cpu = median_speeds(measured), median_cpu(measured)
    rounds = len(measured[WHOLE])
    return {
        "examples_per_second": round(speeds[WHOLE]),
        "over_bare_step": round(speeds[WHOLE] / speeds[BARE], 3),
        "auc": {name: dict(turns[0].auc) for name, turns in measured.items() if any(turns[0].auc.values())},
        "speeds": {name: round(speed) for name, speed in speeds.items()},
        "cpu_us_per_example": {name: round(us) for name, us in cpu.items()},
        "command": f"python benchmarks/learner.py --project PAIR --events {len(bench.records)} --rounds {rounds}",
        "project": bench.project.name,
        "machine": f"{MACHINE}, {cpu_name()}, torch {torch.__version__}",
        "load_average": os.getloadavg()[0],
    }


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    with threadpool_limits(1):  # one BLAS thread, as in the learner (graft/__init__.py)
        main()
