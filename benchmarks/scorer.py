"""How long each part of a scoring request takes: 1 user x 100 items over loopback, one process, one connection.

    python benchmarks/scorer.py [--seconds 3]

Starts its own Redis (filled as Feast fills it), a scorer with random weights of the default shape, and an echo server:
the same Starlette on the same uvicorn, which reads a body and replies one of the same sizes. All are measured in one
run on one machine, client and servers on the same cores. The stages are timed one by one in this process; what is left
between their sum and the request is the event loop and the two processes' switching. All take turns in short slices, so
that other work on the machine disturbs them alike; p10 shows the time without it.
"""

import graft  # noqa: F401 - gives numpy one BLAS thread, as the scorer's process has

# isort: split
import argparse
import asyncio
import os
import platform
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import hiredis
import numpy as np
from pydantic_core import to_json

from features.online.async_reader import AsyncOnlineReader
from features.online.reader import Lookup
from features.online.redis_layout import EntityLayout, field_name
from features.spec import Feature, FeatureSpec, hash_category
from lab.embedded import EmbeddedRedis, free_port
from runtime.child import start_child, stop_child
from runtime.redis import connect, parse_url
from stream.tasks import TaskSpec
from student.serve.requests import RequestContract
from student.serve.swap import ItemPlaces
from student.versions.manifest import Draft, Manifest, StudentConfig
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.served_posterior import COVARIANCE, ID_KEY, USER_KEY
from student.versions.served_tensors import STD, WEIGHT, of_control, tensor_shapes

USERS, ITEMS, ROWS, EMBEDDING = 1_000, 2_000, 100, 16
WARM_UP = 50  # of each slice
ROUNDS = 8
FULL, ECHOED = "POST /score, 1 connection", "echo endpoint, same body sizes"
TRIP, FORWARD = "one Redis round trip, 1 HMGET, no decoding", "forward (numpy)"

SCORER = """
import sys
from pathlib import Path
from runtime.telemetry import StopSignal
from student.serve.workers import Address, listen
from student.serve.server import run_server
from student.serve.swap import ChampionSwap
from student.versions.registry import Registry
swap = ChampionSwap(Registry(Path(sys.argv[1])), sys.argv[2])
with listen({"scores": Address("127.0.0.1", int(sys.argv[3]), "another port")}) as listeners:
    run_server(swap, listeners, StopSignal().install())
"""
ECHO = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
reply = b"x" * int(sys.argv[1])
async def echo(request):
    await request.body()
    return Response(reply, media_type="application/json")
app = Starlette(routes=[Route("/score", echo, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), http="httptools", ws="none", log_level="warning", access_log=False)
"""


Slice = Callable[[float], list[float]]
"""Repeats one measurement for so many seconds; the seconds that each took."""


class Times(NamedTuple):
    """Milliseconds."""

    p10: float
    p50: float
    p99: float
    count: int


def stored(source: str, name: str, value_type: str) -> Feature:
    dtype = {"FLOAT": "float", "STRING": "str", "FLOAT_LIST": "float_list"}[value_type]
    role = {"FLOAT": "dense", "STRING": "categorical", "FLOAT_LIST": "embedding"}[value_type]
    default = {"FLOAT": 0.0, "STRING": "", "FLOAT_LIST": [0.0] * EMBEDDING}[value_type]
    return Feature(
        name=f"{source}s:{name}", source=source, role=role, dtype=dtype, default=default,
        view=f"{source}s", feature=name, value_type=value_type,
    )  # fmt: skip


SPEC = FeatureSpec(
    feast_project="bench",
    user_join_key="user_id",
    item_join_key="item_id",
    user_id_type="int",
    item_id_type="int",
    entity_key_serialization_version=3,
    features=(
        *(stored("user", f"number{i}", "FLOAT") for i in range(6)),
        *(stored("user", f"word{i}", "STRING") for i in range(2)),
        *(stored("item", f"number{i}", "FLOAT") for i in range(6)),
        *(stored("item", f"word{i}", "STRING") for i in range(2)),
        stored("item", "vector", "FLOAT_LIST"),
        Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
        Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
        Feature(name="context:hour", source="context", role="categorical", dtype="int", default=0),
    ),
)
DRAFT = Draft(
    examples=0,
    offsets={},
    spec=SPEC,
    tasks=[
        TaskSpec(name="like", kind="binary", window_seconds=60),
        TaskSpec(name="love", kind="binary", window_seconds=60),
        TaskSpec(name="rating", kind="regression", window_seconds=60),
    ],
    student=StudentConfig(),
    teacher_version=None,
    metrics={},
)


def message(value_type: str, rng: random.Random) -> bytes:
    """A feast.types.Value as Feast stores it."""
    if value_type == "FLOAT":
        return b"\x35" + struct.pack("<f", rng.gauss(0, 1))
    if value_type == "STRING":
        return b"\x12\x06" + b"word%02d" % rng.randrange(40)
    inner = (
        b"\x0a" + bytes([4 * EMBEDDING]) + struct.pack(f"<{EMBEDDING}f", *(rng.gauss(0, 1) for _ in range(EMBEDDING)))
    )
    return b"\x82\x01" + bytes([len(inner)]) + inner


def fill(redis_url: str) -> None:
    rng = random.Random(0)
    with connect(redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for source, count in (("user", USERS), ("item", ITEMS)):
            layout = EntityLayout("bench", f"{source}_id", "int", [])
            features = [f for f in SPEC.features if f.source == source]
            for entity_id in range(count):
                fields = {field_name(f.view, f.feature): message(f.value_type, rng) for f in features}
                pipeline.hset(layout.key(entity_id), mapping=fields)
        pipeline.execute()


def publish(registry: Registry) -> NumpyStudent:
    manifest = Manifest(**dict(DRAFT), version="v000001", parent=None, created_at_ms=0, sha256={})
    rng = np.random.default_rng(0)
    shapes = tensor_shapes(manifest, USERS, ITEMS)
    tensors = {name: np.abs(rng.normal(0, 0.1, shape)).astype(np.float32) for name, shape in shapes.items()}
    for covariance in (COVARIANCE, of_control(COVARIANCE)):
        tensors[covariance] = tensors[covariance] @ tensors[covariance].transpose(0, 2, 1)
    tensors[STD] = np.ones_like(tensors[STD])
    tensors[of_control(STD)] = np.ones_like(tensors[STD])
    tensors[WEIGHT] = np.ones_like(tensors[WEIGHT])
    for key, source, count in ((USER_KEY, "user_id", USERS), (ID_KEY, "item_id", ITEMS)):
        tensors[key] = np.sort(np.array([hash_category(source, number) for number in range(count)], np.uint64))
    registry.publish(DRAFT, tensors, {}, {})
    return NumpyStudent(manifest, tensors)


def bodies(count: int, rows: int = ROWS) -> list[bytes]:
    rng = random.Random(1)
    return [
        to_json(
            {"user_id": rng.randrange(USERS), "item_ids": rng.sample(range(ITEMS), rows), "context": {"hour": i % 24}}
        )
        for i in range(count)
    ]


@contextmanager
def process(program: str, *arguments: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    child = start_child([sys.executable, "-c", program, *arguments, str(port)])
    try:
        while not answers(port):
            time.sleep(0.02)
            assert child.poll() is None, "a server ended while starting"
        yield child
    finally:
        stop_child(child)


def answers(port: int) -> bool:
    """Whether the server replies 200 to a real request."""
    try:
        with Client(port) as client:
            return client.ask(bodies(1)[0]).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Client:
    """One keep-alive connection; uses as little CPU as it can, since it shares the cores with the server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, body: bytes) -> bytes:
        """The whole reply to POST /score, head included."""
        self._socket.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        reply = self._socket.recv(65_536)
        head = reply.index(b"\r\n\r\n") + 4
        length = int(reply[:head].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(reply) < head + length:
            reply += self._socket.recv(65_536)
        return reply


def summary(seconds: list[float]) -> Times:
    p10, p50, p99 = (float(p) for p in np.percentile(seconds, [10, 50, 99]) * 1000)
    return Times(p10, p50, p99, len(seconds))


def timed(call: Callable[[bytes], Any], limit_seconds: float) -> list[float]:
    """`call` in a closed loop over bodies until the time is up."""
    inputs, seconds = bodies(500), []
    end = time.perf_counter() + limit_seconds
    while time.perf_counter() < end or len(seconds) <= 2 * WARM_UP:
        body = inputs[len(seconds) % len(inputs)]
        start = time.perf_counter()
        call(body)
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def taking_turns(slices: dict[str, Slice], limit_seconds: float) -> dict[str, Times]:
    samples: dict[str, list[float]] = {name: [] for name in slices}
    for _ in range(ROUNDS):
        for name, measure_slice in slices.items():
            samples[name] += measure_slice(limit_seconds / ROUNDS)
    return {name: summary(seconds) for name, seconds in samples.items()}


def closed_loop(port: int, limit_seconds: float) -> list[float]:
    with Client(port) as client:
        return timed(client.ask, limit_seconds)


def throughput(port: int, clients: int, limit_seconds: float) -> tuple[float, Times]:
    """Requests per second and times of so many connections, each a closed loop in a thread of this process."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(closed_loop, port, limit_seconds) for _ in range(clients)]
        seconds = [second for run in runs for second in run.result()]
    return (len(seconds) + clients * WARM_UP) / (time.perf_counter() - start), summary(seconds)


def redis_round_trip(redis_url: str, *, with_items: bool) -> Callable[[bytes], Any]:
    """The request's HMGETs in one write, their replies parsed by hiredis but not decoded: any reader needs that.

    Of the user, and `with_items` of all items, too.
    """
    address, lookup, contract = parse_url(redis_url), Lookup(SPEC), RequestContract(SPEC)
    connection, parser = socket.create_connection((address.host, address.port)), hiredis.Reader()
    wire = {}
    for body in bodies(500):
        request = contract.parse(body)
        query = lookup.query([request["user_id"]], request["item_ids"])
        commands = lookup.commands(query) if with_items else lookup.user_commands(query)
        wire[body] = b"".join(commands), len(commands)

    def call(body: bytes) -> None:
        data, due = wire[body]
        connection.sendall(data)
        while due:
            parser.feed(connection.recv(65_536))
            while due and parser.gets() is not False:
                due -= 1

    return call


async def read_slice(reader: AsyncOnlineReader, limit_seconds: float) -> list[float]:
    seconds, inputs = [], [RequestContract(SPEC).parse(body) for body in bodies(500)]
    end = time.perf_counter() + limit_seconds
    while time.perf_counter() < end or len(seconds) <= 2 * WARM_UP:
        request = inputs[len(seconds) % len(inputs)]
        start = time.perf_counter()
        rows = await reader.read(request["user_id"], request["item_ids"], request["context"])
        seconds.append(time.perf_counter() - start)
        assert not rows.degraded
    return seconds[WARM_UP:]


def stages(student: NumpyStudent, reader: AsyncOnlineReader, runner: asyncio.Runner) -> dict[str, Slice]:
    """The scorer's stages, each on the inputs of 500 different requests."""
    contract, items = RequestContract(SPEC), ItemPlaces(SPEC, student)
    requests = {body: contract.parse(body) for body in bodies(500)}
    rows, places, scores = {}, {}, {}
    for body, request in requests.items():
        rows[body] = runner.run(reader.read(request["user_id"], request["item_ids"], request["context"]))
        places[body] = items.of(rows[body])
        scores[body] = student.score_at(rows[body].batch.dense_BD, places[body])

    def reply(body: bytes) -> bytes:
        lists = {task: score_B.tolist() for task, score_B in scores[body].items()}
        item_ids = requests[body]["item_ids"]
        return to_json({"model_version": "v000001", "degraded": False, "item_ids": item_ids, "scores": lists})

    return {
        "parse and validate the body": partial(timed, contract.parse),
        "user from Redis, items from memory, encoded": lambda seconds: runner.run(read_slice(reader, seconds)),
        "the ids' places in the version": partial(timed, lambda body: items.of(rows[body])),
        "score": partial(timed, lambda body: student.score_at(rows[body].batch.dense_BD, places[body])),
        "write the reply as JSON": partial(timed, reply),
    }


def bare_forward(student: NumpyStudent, reader: AsyncOnlineReader, runner: asyncio.Runner) -> Callable[[bytes], Any]:
    """`student.score` of the encoded rows of each request."""
    requests = {body: RequestContract(SPEC).parse(body) for body in bodies(500)}
    batches = {
        body: runner.run(reader.read(request["user_id"], request["item_ids"], request["context"])).batch
        for body, request in requests.items()
    }
    return lambda body: student.score(batches[body])


def print_rows(title: str, times: dict[str, Times]) -> None:
    print(f"\n{title:<44} {'p10':>8} {'p50':>8} {'p99':>8} {'count':>9}")
    for name, row in times.items():
        print(f"{name:<44} {row.p10:8.3f} {row.p50:8.3f} {row.p99:8.3f} {row.count:9,}")


def print_sum(times: dict[str, Times], full: Times) -> None:
    p10, p50 = sum(row.p10 for row in times.values()), sum(row.p50 for row in times.values())
    print(f"{'their sum':<44} {p10:8.3f} {p50:8.3f}")
    print(f"{'POST /score over their sum':<44} {full.p10 / p10:7.2f}x {full.p50 / p50:7.2f}x")


def measure(seconds: float) -> None:
    scorer_port, echo_port = free_port(), free_port()
    with EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        fill(redis.url)
        student = publish(Registry(Path(folder)))
        reader = AsyncOnlineReader(SPEC, redis.url, timeout_seconds=5.0)
        with process(SCORER, folder, redis.url, port=scorer_port):
            with Client(scorer_port) as client:
                size = len(client.ask(bodies(1)[0]).partition(b"\r\n\r\n")[2])
            parts = stages(student, reader, runner)
            with process(ECHO, str(size), port=echo_port):
                floor = {
                    ECHOED: partial(closed_loop, echo_port),
                    TRIP: partial(timed, redis_round_trip(redis.url, with_items=False)),
                    FORWARD: partial(timed, bare_forward(student, reader, runner)),
                }
                times = taking_turns({FULL: partial(closed_loop, scorer_port), **floor, **parts}, seconds)
            rate, crowd = throughput(scorer_port, 8, seconds)
        runner.run(reader.close())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"1 user x {ROWS} items, {len(SPEC.features)} features, body {len(bodies(1)[0])} B, reply {size} B")
    print_rows("milliseconds", {FULL: times[FULL], f"POST /score, 8 connections ({rate:,.0f} req/s)": crowd})
    for title, names in (("the floor", (ECHOED, TRIP, FORWARD)), ("the stages in the scorer", tuple(parts))):
        rows = {name: times[name] for name in names}
        print_rows(title, rows)
        print_sum(rows, times[FULL])


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # as in the scorer (graft/__init__.py); numpy reads it when imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser(description="Measure the scoring endpoint against its floor.")
    parser.add_argument("--seconds", type=float, default=3.0, help="time of each closed loop")
    measure(parser.parse_args().seconds)
