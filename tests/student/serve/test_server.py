"""The scoring endpoint over real HTTP and a real Redis."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from features.online.redis_layout import EntityLayout, field_name
from features.spec import Feature, FeatureSpec
from lab.embedded import EmbeddedRedis, free_port
from runtime.child import start_child, stop_child
from runtime.redis import connect
from runtime.telemetry import StopSignal
from stream.tasks import TaskSpec
from student.serve.requests import MAX_BODY_BYTES
from student.serve.server import run_server
from student.serve.swap import ChampionSwap
from student.serve.workers import Address, Group, Listeners, listen
from student.versions.manifest import Draft, StudentConfig
from student.versions.registry import Registry
from student.versions.served_posterior import UNIT
from student.versions.served_tensors import tensor_shapes
from tests.specs import spec_of
from tests.student.posteriors import draft_of, manifest_of, transparent, unguarded

SPEC = spec_of(
    Feature(
        name="users:age",
        source="user",
        role="dense",
        dtype="float",
        default=7.0,
        view="users",
        feature="age",
        value_type="FLOAT",
    ),
    Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
    Feature(name="context:hour", source="context", role="dense", dtype="int", default=12),
)
TASKS = [
    TaskSpec(name="like", kind="binary", window_seconds=60),
    TaskSpec(name="love", kind="binary", window_seconds=60, served=False),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
]
STUDENT = StudentConfig(trunk=[4], tower=2, embedding_dim=2, table_rows=16)
BODY = {"user_id": 1, "item_ids": [10, 11, 12], "context": {"hour": 3}}


def draft(spec: FeatureSpec = SPEC) -> Draft:
    return draft_of(spec, TASKS, STUDENT)


def constant_tensors(of: Draft, rating: float) -> dict[str, np.ndarray]:
    """A student that rates everything `rating`, with a probability of 0.5."""
    manifest = manifest_of(of)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(manifest).items()}
    ones = np.ones_like(zeros["normalizer.std"])
    posterior = transparent(manifest)
    posterior[UNIT][2, 0] = rating
    bias = np.array([rating], np.float32)
    return unguarded(manifest, zeros | posterior | {"normalizer.std": ones, "head.rating.bias": bias})


def publish(registry: Registry, spec: FeatureSpec = SPEC, weights: dict[str, Any] | None = None) -> str:
    """The next version; version v00000N rates everything N, unless `weights` say otherwise."""
    number = int((registry.latest() or "v0").removeprefix("v")) + 1
    of = draft(spec)
    arrays = {name: np.asarray(weight, np.float32) for name, weight in (weights or {}).items()}
    return registry.publish(of, constant_tensors(of, number) | arrays, {}, {}).version


def store_age(redis_url: str, user_id: int, age: float) -> None:
    """What Feast writes for the user's age."""
    layout = EntityLayout("p", "user_id", "int", [])
    with connect(redis_url) as client:
        client.hset(layout.key(user_id), field_name("users", "age"), b"\x35" + struct.pack("<f", age))


@dataclass
class Endpoint:
    port: int
    registry: Registry
    stop: StopSignal

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[HTTPResponse, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        response, body = self.ask("GET", path)
        return response.status, json.loads(body)

    def post(self, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response, reply = self.ask("POST", "/score", data)
        return response.status, json.loads(reply)

    def metric(self, name: str) -> float:
        _, text = self.ask("GET", "/metrics")
        return sum(float(line.split()[-1]) for line in text.decode().splitlines() if line.startswith(name))

    def wait_for(self, version: str) -> None:
        until(lambda: self.get("/readyz")[1].get("model_version") == version, version)


def until(condition: Any, what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def at(port: int, **apart: int) -> AbstractContextManager[Listeners]:
    ports = {"scores": port, **apart}
    return listen({cast("Group", group): Address("127.0.0.1", of, "--port") for group, of in ports.items()})


@contextmanager
def serving(registry: Registry, redis_url: str, sample: float = 0.0, **apart: int) -> Iterator[Endpoint]:
    """A scorer; `apart`: the ports of the groups that do not share that of the scores."""
    endpoint = Endpoint(free_port(), registry, StopSignal())
    with ThreadPoolExecutor(1) as pool, at(endpoint.port, **apart) as listeners:
        swap = ChampionSwap(registry, redis_url)
        run = pool.submit(run_server, swap, listeners, endpoint.stop, sample=sample)
        try:
            until(lambda: run.done() or _listens(endpoint.port), "the listener")
            yield endpoint
        finally:
            endpoint.stop.set()
        run.result(timeout=20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def endpoint(registry: Registry, redis_url: str) -> Iterator[Endpoint]:
    """A scorer with version v000001."""
    publish(registry)
    with serving(registry, redis_url) as running:
        running.wait_for("v000001")
        yield running


def test_a_reply_has_every_served_task_parallel_to_the_items(endpoint: Endpoint) -> None:
    status, reply = endpoint.post(BODY)
    assert status == 200
    assert reply == {
        "model_version": "v000001",
        "degraded": False,
        "item_ids": [10, 11, 12],
        "scores": {"like": [0.5, 0.5, 0.5], "rating": [1.0, 1.0, 1.0]},
    }


def test_features_of_user_and_context_reach_the_scores(registry: Registry, redis_url: str) -> None:
    age_plus_hour = {
        "normalizer.std": [32, 32],
        "trunk.0.weight": [[1, 1, 0, 0], *[[0] * 4] * 3],
        "tower.rating.weight": [[1, 0, 0, 0], [0] * 4],
        "head.rating.weight": [[32, 0]],
        "head.rating.bias": [0],
        UNIT: [[0, 1], [0, 1], [0, 64]],
    }
    publish(registry, weights=age_plus_hour)
    store_age(redis_url, 1, 30.5)
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000001")
        known, unknown = endpoint.post(BODY)[1], endpoint.post({**BODY, "user_id": 2})[1]
        silent = endpoint.post({"user_id": 1, "item_ids": [10]})[1]
    assert known["scores"]["rating"] == [30.5 + 3] * 3
    assert unknown["scores"]["rating"] == [7.0 + 3] * 3
    assert silent["scores"]["rating"] == [30.5 + 12]
    assert [reply["degraded"] for reply in (known, unknown, silent)] == [False] * 3


def test_a_score_that_is_no_number_is_null(registry: Registry, redis_url: str) -> None:
    publish(registry, weights={"normalizer.mean": [7, 0], "trunk.0.weight": [[3e38, 0, 0, 0], *[[0] * 4] * 3]})
    store_age(redis_url, 1, 1e30)
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000001")
        assert endpoint.post(BODY)[1]["scores"] == {"like": [None] * 3, "rating": [None] * 3}
        assert endpoint.post({**BODY, "user_id": 2})[1]["scores"]["rating"] == [1.0] * 3


def test_it_is_alive_but_not_ready_before_the_first_version(registry: Registry, redis_url: str) -> None:
    with serving(registry, redis_url) as endpoint:
        assert endpoint.get("/healthz") == (200, {"status": "alive"})
        status, reply = endpoint.get("/readyz")
        assert (status, reply["status"]) == (503, "not ready")
        assert "no version is loaded" in reply["reason"]
        response, body = endpoint.ask("POST", "/score", json.dumps(BODY).encode())
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "no version is loaded" in json.loads(body)["error"]["message"]
        assert endpoint.get("/v2/health/ready") == (503, {"ready": False})
        status, reply = endpoint.get("/v2/models/student/ready")
        assert (status, "no version is loaded" in reply["error"]) == (503, True)
        publish(registry)
        endpoint.wait_for("v000001")
        assert endpoint.post(BODY)[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "field", "value", "allowed"),
    [
        (b"{", 400, "", None, "a JSON object"),
        (b'{"user_id": NaN, "item_ids": [1]}', 422, "user_id", "NaN", "an integer in [-2^63, 2^63)"),
        ({**BODY, "user_id": "x"}, 422, "user_id", "x", "an integer in [-2^63, 2^63)"),
        ({**BODY, "context": {"moon": 1}}, 422, "context.moon", 1, "an object with any of hour"),
        (b"x" * (MAX_BODY_BYTES + 1), 413, "", MAX_BODY_BYTES + 1, f"a body of at most {MAX_BODY_BYTES} bytes"),
    ],
)
def test_a_bad_request_is_told_field_value_and_what_is_allowed(
    endpoint: Endpoint, body: Any, status: int, field: str, value: Any, allowed: str
) -> None:
    found, reply = endpoint.post(body)
    fault = {"field": field, "value": value, "allowed": allowed}
    assert found == status
    assert {**reply["error"], **fault} == reply["error"]
    assert allowed in reply["error"]["message"]
    assert reply["error"]["faults"][0]["field"] == field


def test_an_endless_body_is_refused_at_the_limit(endpoint: Endpoint) -> None:
    connection = endpoint.connect()
    chunks = (b" " * 65_536 for _ in range(40))  # 2.5 MiB without a content-length
    connection.request("POST", "/score", chunks, encode_chunked=True, headers={"transfer-encoding": "chunked"})
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["allowed"] == f"a body of at most {MAX_BODY_BYTES} bytes"
    connection.close()


def test_other_methods_and_paths_are_refused_in_json(endpoint: Endpoint) -> None:
    response, body = endpoint.ask("GET", "/score")
    assert (response.status, response.headers["allow"]) == (405, "POST")
    assert json.loads(body)["error"]["allowed"] == "POST"
    status, reply = endpoint.get("/scores")
    assert (status, reply["error"]["field"], reply["error"]["value"]) == (404, "path", "/scores")
    assert "/score, " in reply["error"]["allowed"]


def test_a_refused_request_leaves_the_connection_usable(endpoint: Endpoint) -> None:
    connection = endpoint.connect()
    for body, status in ((b"{", 400), (json.dumps(BODY).encode(), 200), (b"[]", 422), (json.dumps(BODY).encode(), 200)):
        connection.request("POST", "/score", body)
        response = connection.getresponse()
        assert (response.status, response.read() != b"") == (status, True)
    connection.close()


def test_metrics_count_requests_by_status_and_name_the_version(endpoint: Endpoint) -> None:
    good = endpoint.metric('graft_scorer_requests_total{status="200"}')
    bad = endpoint.metric('graft_scorer_requests_total{status="422"}')
    timed = endpoint.metric("graft_scorer_request_seconds_count")
    endpoint.post(BODY)
    endpoint.post({})
    assert endpoint.metric('graft_scorer_requests_total{status="200"}') == good + 1
    assert endpoint.metric('graft_scorer_requests_total{status="422"}') == bad + 1
    assert endpoint.metric("graft_scorer_request_seconds_count") == timed + 2
    assert endpoint.metric("graft_scorer_version ") == 1


def test_swaps_under_load_fail_no_request_and_mix_no_versions(endpoint: Endpoint) -> None:
    stop, seen = threading.Event(), set[str]()
    swaps = endpoint.metric("graft_scorer_swaps_total ")

    def client() -> list[str]:
        faults, connection = [], endpoint.connect()
        while not stop.is_set():
            connection.request("POST", "/score", json.dumps({"user_id": 1, "item_ids": list(range(50))}))
            response = connection.getresponse()
            reply = json.loads(response.read())
            number = float(reply["model_version"].removeprefix("v"))
            if response.status != 200 or reply["scores"]["rating"] != [number] * 50:
                faults.append(f"{response.status}: {reply}")
            seen.add(reply["model_version"])
        connection.close()
        return faults

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        for _ in range(12):
            version = publish(endpoint.registry)
            until(lambda version=version: version in seen, version)
        stop.set()
        assert [run.result() for run in clients] == [[], [], [], []]
    assert seen == {f"v{n:06d}" for n in range(1, 14)}
    assert endpoint.metric("graft_scorer_swaps_total ") == swaps + 12


def test_redis_gone_gives_degraded_replies_until_it_is_back(registry: Registry) -> None:
    publish(registry)
    with EmbeddedRedis() as redis, serving(registry, redis.url) as endpoint:
        endpoint.wait_for("v000001")
        assert endpoint.post(BODY)[1]["degraded"] is False
        degraded = endpoint.metric("graft_scorer_degraded_total ")
        stop_child(redis.process)
        status, reply = endpoint.post(BODY)
        assert (status, reply["degraded"], reply["scores"]["rating"]) == (200, True, [1.0] * 3)
        assert endpoint.metric("graft_scorer_degraded_total ") == degraded + 1
        version = publish(registry)
        endpoint.wait_for(version)
        redis.restart()
        until(lambda: endpoint.post(BODY)[1]["degraded"] is False, "Redis' return")


def test_a_client_that_goes_away_is_counted_and_hurts_nobody(endpoint: Endpoint) -> None:
    gone = endpoint.metric('graft_scorer_requests_total{status="499"}')
    connection = endpoint.connect()
    connection.putrequest("POST", "/score")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"half a body")
    connection.close()
    until(lambda: endpoint.metric('graft_scorer_requests_total{status="499"}') == gone + 1, "the count")
    assert endpoint.post(BODY)[0] == 200


@contextmanager
def process(registry: Registry, redis_url: str, imports: Path) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    """``graft student serve``; what it imports is written to `imports`, one line a module."""
    endpoint = Endpoint(free_port(), registry, StopSignal())
    argv = [sys.executable, "-X", "importtime", "-m", "graft", "student", "serve", "--port", str(endpoint.port)]
    environment = {**os.environ, "GRAFT_VERSIONS": str(registry.folder), "GRAFT_REDIS_URL": redis_url}
    with imports.open("wb") as log:
        child = start_child(argv, env=environment, stderr=log)
    try:
        until(lambda: _listens(endpoint.port), "the process' listener")
        yield endpoint, child
    finally:
        stop_child(child)


def test_the_command_ends_at_sigterm_after_the_request_in_flight(
    registry: Registry, redis_url: str, tmp_path: Path
) -> None:
    version = publish(registry)
    body = json.dumps(BODY).encode()
    with process(registry, redis_url, tmp_path / "imports") as (endpoint, child):
        endpoint.wait_for(version)
        connection = endpoint.connect()
        connection.putrequest("POST", "/score")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:10])
        time.sleep(0.1)  # the server has read the head: the request is in flight
        child.terminate()
        until(lambda: not _listens(endpoint.port), "the closed listener")
        connection.send(body[10:])
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["model_version"]) == (200, version)
        connection.close()
        assert child.wait(10) == 0


def test_the_command_has_neither_torch_feast_kafka_pandas_nor_arrow_when_it_has_scored(
    registry: Registry, redis_url: str, tmp_path: Path
) -> None:
    publish(registry)
    with process(registry, redis_url, tmp_path / "imports") as (endpoint, _):
        endpoint.wait_for("v000001")
        assert endpoint.post(BODY)[0] == 200
    lines = (tmp_path / "imports").read_text().splitlines()
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    assert "uvicorn" in packages
    assert packages & {"torch", "feast", "kafka", "pandas", "pyarrow", "onnxruntime"} == set()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_numpy_starts_no_blas_threads_that_compete_for_the_cores() -> None:
    program = "import graft, numpy, os; print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_NUM")}
    threads = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert threads.stdout.strip() == b"1"
