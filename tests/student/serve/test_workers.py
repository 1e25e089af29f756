"""``graft student serve --workers 2``: several processes that are one endpoint."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lab.embedded import EmbeddedRedis, free_port
from runtime.child import start_child, stop_child
from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.workers import run_workers
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, Endpoint, at, publish, until

pytestmark = pytest.mark.timeout(180)


@contextmanager
def command(
    registry: Registry, redis_url: str, port: int, **settings: str
) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    environment = {**os.environ, "GRAFT_VERSIONS": str(registry.folder), "GRAFT_REDIS_URL": redis_url, **settings}
    argv = [sys.executable, "-m", "graft", "student", "serve", "--port", str(port), "--workers", "2"]
    parent = start_child(argv, env=environment)
    try:
        yield Endpoint(port, registry, StopSignal()), parent
    finally:
        stop_child(parent)


def workers_of(parent: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(parent.pid).children()


def maps(worker: psutil.Process, version: str) -> bool:
    """Whether the process has the version's tensors as a read-only map that it shares."""
    lines = Path(f"/proc/{worker.pid}/maps").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.endswith(f"{version}/model.safetensors")]
    return bool(found) and all(flags in ("r--s", "r--p") for flags in found)


def both_serve(parent: subprocess.Popen[bytes], version: str) -> bool:
    workers = workers_of(parent)
    try:
        return len(workers) == 2 and all(maps(worker, version) for worker in workers)
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, subprocess.Popen[bytes]]]:
    registry = Registry(tmp_path_factory.mktemp("versions"))
    publish(registry)
    with EmbeddedRedis() as redis, command(registry, redis.url, free_port()) as (endpoint, parent):
        until(lambda: both_serve(parent, "v000001"), "two workers", 60.0)
        yield endpoint, parent


def asked(endpoint: Endpoint, count: int) -> set[str]:
    """The versions that answer requests, each on a connection of its own."""
    return {endpoint.post(BODY)[1]["model_version"] for _ in range(count)}


def test_metrics_count_the_requests_of_all_workers(running: tuple[Endpoint, subprocess.Popen[bytes]]) -> None:
    endpoint, _ = running
    before = endpoint.metric('graft_scorer_requests_total{status="200"}')
    asked(endpoint, 30)
    assert endpoint.metric('graft_scorer_requests_total{status="200"}') == before + 30
    assert endpoint.metric("graft_scorer_version") == 1


def test_a_swap_reaches_all_workers_and_the_model_is_one_read_only_map(
    running: tuple[Endpoint, subprocess.Popen[bytes]],
) -> None:
    endpoint, parent = running
    version = publish(endpoint.registry)
    until(lambda: both_serve(parent, version), "both on the new version")
    until(lambda: endpoint.metric("graft_scorer_version") == 2, "the metric of the slower one")
    assert asked(endpoint, 20) == {version}


def test_a_killed_worker_is_replaced_while_the_other_answers_and_no_count_is_lost(
    running: tuple[Endpoint, subprocess.Popen[bytes]],
) -> None:
    endpoint, parent = running
    before = endpoint.metric('graft_scorer_requests_total{status="200"}')
    killed = workers_of(parent)[0].pid
    os.kill(killed, signal.SIGKILL)
    statuses = []

    def replaced() -> bool:
        statuses.append(endpoint.post(BODY)[0])
        pids = {worker.pid for worker in workers_of(parent)}
        return killed not in pids and both_serve(parent, str(endpoint.registry.champion()))

    until(replaced, "another worker", 60.0)
    assert set(statuses) == {200}
    assert endpoint.metric('graft_scorer_requests_total{status="200"}') == before + len(statuses)


def test_sigterm_ends_all_workers_after_the_requests_in_flight(
    running: tuple[Endpoint, subprocess.Popen[bytes]],
) -> None:
    endpoint, parent = running
    body = json.dumps(BODY).encode()
    open_requests = [endpoint.connect() for _ in range(6)]
    for connection in open_requests:
        connection.putrequest("POST", "/score")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:10])
    asked(endpoint, 4)  # the heads before have been read meanwhile
    workers = workers_of(parent)
    parent.terminate()
    until(lambda: not _listens(endpoint.port), "the closed port")
    for connection in open_requests:
        connection.send(body[10:])
        assert connection.getresponse().status == 200
        connection.close()
    assert parent.wait(20) == 0
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_workers_that_never_start_end_the_command() -> None:
    argv = [sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"]
    with pytest.raises(GraftError, match="no worker of the scorer could start"), at(free_port()) as listeners:
        run_workers(argv, 2, listeners, StopSignal())


def test_a_killed_parent_leaves_no_worker(tmp_path: Path, redis_url: str) -> None:
    registry = Registry(tmp_path)
    publish(registry)
    with command(registry, redis_url, free_port()) as (_, parent):
        until(lambda: both_serve(parent, "v000001"), "two workers", 60.0)
        workers = workers_of(parent)
        parent.kill()
        psutil.wait_procs(workers, 10)
        assert not any(worker.is_running() for worker in workers)


def test_workers_share_each_listener(tmp_path: Path, redis_url: str) -> None:
    registry, metrics_port, admin_port = Registry(tmp_path), free_port(), free_port()
    publish(registry)
    ports = {"GRAFT_METRICS_PORT": str(metrics_port), "GRAFT_ADMIN_PORT": str(admin_port)}
    with command(registry, redis_url, free_port(), **ports) as (endpoint, parent):
        until(lambda: both_serve(parent, "v000001"), "two workers", 60.0)
        assert [endpoint.post(BODY)[0] for _ in range(30)] == [200] * 30
        assert Endpoint(metrics_port, registry, StopSignal()).metric('graft_scorer_requests_total{status="200"}') == 30
        assert Endpoint(admin_port, registry, StopSignal()).get("/v2/models/student")[0] == 200
        assert endpoint.ask("GET", "/metrics")[0].status == 404
