"""How much of its teacher's speed a backfill keeps, and how much faster two Ray workers are than one.

A project of the simulated pair gets a teacher of two wide layers with random weights, as wide as makes a row cost so
many microseconds on this machine. `bare_rows_per_second` is the teacher alone, on its one thread, called with mapped
inputs of the log in batches of 1,024, before and after each backfill and in the same process. The backfill reads an
example log, maps, scores and puts in an embedded Redis that was empty, with a checkpoint for each batch. Of the rounds
the one with the median share is told. `own_cpu_microseconds_a_row` is what the backfill's process takes beside its
teacher, without Redis' server. With `--ray` only the workers are measured, on a cluster of one node and one of two
nodes, each bound to a CPU of this machine; needs graft[ray]. What was not measured keeps its figures.

PYTHONPATH=. python benchmarks/teacher_backfill.py [--rows 400000] [--microseconds 20 50] [--rounds 5] [--ray]
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from features.spec import Feature, FeatureSpec
from graft.commands.teacher.teacher_parts import ProjectTeacher
from graft.process import begin
from lab.embedded import EmbeddedRedis, free_port
from lab.page import MACHINE
from lab.pairs.simulated import Sizes, write_simulated
from runtime.child import start_child, stop_child
from runtime.redis import connect
from stream.events import Example
from stream.log.example_file import write
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from teacher_cache.backfill.backfill import backfill
from teacher_cache.backfill.histories import LoggedExamples, Tracked
from teacher_cache.domain.request_scorer import BATCH_ROWS

RESULTS = Path(__file__).with_name("results") / "teacher_backfill.json"
PARTITIONS, USERS, ITEMS = 4, 5_000, 2_000
FILE_ROWS = 20_000
BARE_BATCHES, BARE_SECONDS = 8, 2.0
INPUTS = {
    "viewer_id": (TensorProto.INT64, 1),
    "viewer_views": (TensorProto.FLOAT, 1),
    "viewer_play_share": (TensorProto.FLOAT, 1),
    "clip_code": (TensorProto.INT64, 1),
    "beats_per_second": (TensorProto.FLOAT, 1),
    "sound": (TensorProto.FLOAT, 4),
    "age_group": (TensorProto.INT64, 1),
    "surface_code": (TensorProto.INT64, 1),
    "country_code": (TensorProto.INT64, 1),
    "style_code": (TensorProto.INT64, 1),
}
HEADS = "play", "follow", "watch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--microseconds", type=float, nargs="+", default=[20, 50], help="what a row costs the teachers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="two Ray workers over one, with the first teacher")
    asked = parser.parse_args()
    load = os.getloadavg()[0]  # of others: our own comes later
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedRedis())
        os.environ |= {"GRAFT_REDIS_URL": server.url, "GRAFT_PROJECT": str(folder / "project")}
        log = prepare(folder, asked.rows)
        told = {"command": "python benchmarks/teacher_backfill.py " + " ".join(sys.argv[1:]), "machine": MACHINE}
        if asked.ray:
            found = told_of_ray(folder, server.url, log, asked)
            found = {"ray_" + name: value for name, value in (told | {"load_average_before": load} | found).items()}
        else:
            teachers = {f"{cost:g}": median_of(folder / "project", log, asked, cost) for cost in asked.microseconds}
            found = told | {
                "rows": asked.rows,
                "load_average_before": load,
                "load_average": round(os.getloadavg()[0], 2),
                "over_bare_rate": teachers[f"{asked.microseconds[0]:g}"]["over_bare_rate"],
                "teachers": teachers,
            }
    RESULTS.write_text(json.dumps(json.loads(RESULTS.read_text()) | found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def prepare(folder: Path, rows: int) -> Path:
    """The project, and a log of so many examples."""
    write_simulated(folder / "project", Sizes(events=100, users=50, items=20), 1)
    subprocess.run([sys.executable, "-m", "graft", "features", "apply"], check=True, capture_output=True)
    write_log(folder / "log", ProjectTeacher(begin(None)).spec, rows)
    return folder / "log"


def median_of(project: Path, log: Path, asked: argparse.Namespace, microseconds: float) -> dict[str, Any]:
    """The median of some rounds with a teacher of this cost a row, and their spread."""
    width, teacher = teacher_of_cost(project, log, microseconds)
    rounds = sorted((measure(teacher, log, asked.rows) for _ in range(asked.rounds)), key=lambda one: one.over_bare)
    middle = rounds[asked.rounds // 2]
    return {
        "width": width,
        "teacher_microseconds_a_row": round(1e6 / middle.bare.rows_per_second, 1),
        "bare_rows_per_second": round(middle.bare.rows_per_second),
        "backfill_rows_per_second": round(middle.backfill.rows_per_second),
        "own_cpu_microseconds_a_row": round(middle.backfill.cpu_microseconds - middle.bare.cpu_microseconds, 1),
        "over_bare_rate": round(middle.over_bare, 3),
        "over_bare_rates": [round(one.over_bare, 3) for one in rounds],
    }


def teacher_of_cost(project: Path, log: Path, microseconds: float) -> tuple[int, ProjectTeacher]:
    """A teacher of which a row costs about so much, and not less where the machine is as quiet later."""
    width = 512
    for _ in range(4):
        save_teacher(project / "teacher.onnx", width)
        teacher = ProjectTeacher(begin(None))
        cost = bare_pace(teacher, log).cpu_microseconds  # which tells more than the clock on a busy machine
        if microseconds <= cost < 1.1 * microseconds:
            break
        width = round(width * (1.05 * microseconds / cost) ** 0.5 / 16) * 16
    return width, teacher


def save_teacher(path: Path, width: int) -> None:
    """A network of two layers of this width with random weights."""
    random_, columns, constants, nodes = np.random.default_rng(1), [], [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    constant("column", np.array([-1, 1], np.int64))
    for name, (_, size) in INPUTS.items():
        cast = f"{name}.float"
        nodes.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
        if size == 1:
            nodes.append(helper.make_node("Reshape", [cast, "column"], [f"{name}.column"]))
        columns.append(f"{name}.column" if size == 1 else cast)
    nodes.append(helper.make_node("Concat", columns, ["features"], axis=1))
    sizes = [sum(size for _, size in INPUTS.values()), width, width, len(HEADS)]
    hidden = "features"
    for n, (before, after) in enumerate(pairwise(sizes)):
        weights = (random_.normal(size=(before, after)) / np.sqrt(before)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [hidden, constant(f"w{n}", weights)], [f"sum{n}"]))
        hidden = f"sum{n}"
        if after != len(HEADS):
            nodes.append(helper.make_node("Relu", [hidden], [f"active{n}"]))
            hidden = f"active{n}"
    nodes.append(helper.make_node("Split", [hidden], [f"{head}.column" for head in HEADS], axis=1, num_outputs=3))
    constant("flat", np.array([-1], np.int64))
    nodes += [helper.make_node("Reshape", [f"{head}.column", "flat"], [head]) for head in HEADS]
    signature = [
        helper.make_tensor_value_info(name, dtype, ["B"] if size == 1 else ["B", size])
        for name, (dtype, size) in INPUTS.items()
    ]
    outputs = [helper.make_tensor_value_info(head, TensorProto.FLOAT, ["B"]) for head in HEADS]
    graph = helper.make_graph(nodes, "teacher", signature, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def write_log(folder: Path, spec: FeatureSpec, rows: int) -> None:
    chance = random.Random(1)
    for partition in range(PARTITIONS):
        size = rows // PARTITIONS
        for first in range(0, size, FILE_ROWS):
            run = [
                ExampleRecord(partition, offset, example(offset * PARTITIONS + partition, spec, chance))
                for offset in range(first, min(size, first + FILE_ROWS))
            ]
            write(folder, first, run)


def example(n: int, spec: FeatureSpec, chance: random.Random) -> Example:
    user, item = chance.randrange(USERS), chance.randrange(ITEMS)
    return Example(
        impression_id=f"i{n}",
        user_id=user,
        item_id=item,
        event_time_ms=n,
        context={"device": "car"},
        spec_id=spec.spec_id,
        features=[value_of(feature, user, item, chance) for feature in spec.features],
        labels={"click": 1.0, "dwell": 2.5},
    )


def value_of(feature: Feature, user: int, item: int, chance: random.Random) -> Any:
    if feature.source in ("user_id", "item_id"):
        return user if feature.source == "user_id" else item
    if feature.dtype == "str":
        return chance.choice(["japan", "pop", "car", "kenya"])
    if feature.dtype == "float_list":
        return [round(chance.gauss(0, 1), 4) for _ in range(4)]
    return chance.randrange(80) if feature.dtype == "int" else round(chance.uniform(0, 90), 3)


class Pace(NamedTuple):
    """Rows by the clock, and CPU of this process a row."""

    rows_per_second: float
    cpu_microseconds: float


class Round(NamedTuple):
    """The teacher alone, and a backfill with it."""

    bare: Pace
    backfill: Pace

    @property
    def over_bare(self) -> float:
        """The share of the teacher's rate that the backfill keeps."""
        return self.backfill.rows_per_second / self.bare.rows_per_second


def measure(teacher: ProjectTeacher, log: Path, rows: int) -> Round:
    """The bare pace before and after a backfill into an empty Redis, and the backfill's."""
    with connect(teacher.process.redis_url) as client:
        client.flushdb()
    before = bare_pace(teacher, log)
    history, cpu = LoggedExamples(ExampleLog(log), None, None), time.process_time()
    with closing(teacher.open_cache("backfill")) as cache, closing(teacher.open_checkpoint("bench")) as checkpoint:
        requests = Tracked(history, history.bounds(), {})
        report = backfill(
            requests,
            teacher.scoring.scorer,
            cache,
            progress=lambda _rows, _reached: None,
            put=lambda _, reached: checkpoint.save(requests.bounds, reached),
        )
    cpu = time.process_time() - cpu
    assert report.read == rows, report
    after = bare_pace(teacher, log)
    bare = Pace(*((one + other) / 2 for one, other in zip(before, after, strict=True)))
    return Round(bare, Pace(rows / report.seconds, 1e6 * cpu / rows))


def bare_pace(teacher: ProjectTeacher, log: Path) -> Pace:
    """That of the teacher alone, called with one batch of the log after the other, for `BARE_SECONDS`."""
    scoring, history = teacher.scoring, LoggedExamples(ExampleLog(log), None, None)
    batches = islice(Tracked(history, history.bounds(), {}).batches(BATCH_ROWS), BARE_BATCHES)
    inputs = cycle([scoring.scorer.map_rows(batch.requests.features).inputs for batch in batches])
    scoring.model.score(next(inputs))
    started, cpu, rows = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < BARE_SECONDS:
        rows += len(scoring.model.score(next(inputs)))
    return Pace(rows / (time.perf_counter() - started), 1e6 * (time.process_time() - cpu) / rows)


def told_of_ray(folder: Path, redis_url: str, log: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The median rates of one and of two workers, in turns."""
    width, _ = teacher_of_cost(folder / "project", log, asked.microseconds[0])
    turns = [(ray_rate(1, redis_url, log), ray_rate(2, redis_url, log)) for _ in range(asked.rounds)]
    rates = {nodes: median(of_nodes) for nodes, of_nodes in enumerate(zip(*turns, strict=True), start=1)}
    return {
        "rows": asked.rows,
        "rounds": asked.rounds,
        "width": width,
        "rows_per_second": {str(nodes): round(rate) for nodes, rate in rates.items()},
        "two_over_one": round(rates[2] / rates[1], 2),
        "load_average": round(os.getloadavg()[0], 2),
    }


def ray_rate(nodes: int, redis_url: str, log: Path) -> float:
    """Rows a second of `graft teacher backfill --engine ray`, by when which rows were put.

    Of the middle third: when it begins all workers have started, and when it ends none is without work.
    """
    with cluster(nodes) as address, connect(redis_url) as client:
        client.flushdb()
        argv = [sys.executable, "-m", "graft", "teacher", "backfill", "--engine", "ray", "--json", "--from", str(log)]
        command = subprocess.Popen(argv, env=os.environ | {"RAY_ADDRESS": address}, stdout=subprocess.DEVNULL)
        found = [(time.perf_counter(), 0)]
        while command.poll() is None:
            put = sum(int(client.hget(key, "put:backfill") or 0) for key in client.scan_iter("graft:teachers:*:*"))
            if put > found[-1][1]:
                found.append((time.perf_counter(), put))
            time.sleep(0.02)
        assert command.returncode == 0
    middle = [(at, put) for at, put in found if found[-1][1] / 3 <= put <= found[-1][1] * 2 / 3]
    (start, first), (end, last) = middle[0], middle[-1]
    return (last - first) / (end - start)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """So many Ray nodes of one CPU on this machine, each bound to a CPU of its own: else one takes both."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
    address = f"127.0.0.1:{free_port()}"
    argv = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    argv += ["--object-store-memory=80000000", "--node-ip-address=127.0.0.1"]
    head = ["--head", "--port", address.split(":")[1], "--include-dashboard=false", "--temp-dir", str(folder)]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        with (folder / "log").open("wb") as file:
            started = [
                start_child(["taskset", "-c", str(cpu), *argv, *arguments], env=environment, stdout=file, stderr=file)
                for cpu, arguments in enumerate([head, *[["--address", address]] * (nodes - 1)])
            ]
        wait_for_nodes(address, nodes)
        yield address
    finally:
        for node in reversed(started):
            stop_child(node, 20)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_nodes(address: str, nodes: int) -> None:
    code = f"import ray; ray.init({address!r}, log_to_driver=False, logging_level=50); print(len(ray.nodes()))"
    for _ in range(30):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if int(done.stdout or 0) == nodes:
            return
        time.sleep(1)
    raise TimeoutError(f"{nodes} nodes do not come up")


if __name__ == "__main__":
    main()
