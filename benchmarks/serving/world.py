"""What all parts measure: a Redis filled as Feast fills it, a registry of random weights, and servers of them."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import scorer
from benchmarks.serving.load import request
from lab.embedded import EmbeddedRedis, free_port
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry

BODIES = scorer.bodies(500)
REQUESTS = [request("/score", body) for body in BODIES]
VERSION = "v000001"
"""The one that is published."""


class World(NamedTuple):
    redis: EmbeddedRedis
    registry: Registry
    student: NumpyStudent
    cores: list[int]
    """The first serves, the last asks and runs Redis; the same where there is but one."""


@contextmanager
def world() -> Iterator[World]:
    random.seed(0)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-1:])
    with EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(redis.process.pid, cores[-1:])
        scorer.fill(redis.url)
        registry = Registry(Path(folder))
        yield World(redis, registry, scorer.publish(registry), cores)
    os.sched_setaffinity(0, cores)


@contextmanager
def on_cores(cores: list[int], *pids: int) -> Iterator[None]:
    """This process and those run there meanwhile."""
    before = {one: os.sched_getaffinity(one) for one in (0, *pids)}
    for one in before:
        os.sched_setaffinity(one, cores)
    yield
    for one, was in before.items():
        os.sched_setaffinity(one, was)


@contextmanager
def graft_serving(of: World, workers: int = 1) -> Iterator[tuple[int, psutil.Process]]:
    """``graft student serve`` with so many workers, on as many first cores; port and (parent) process."""
    port = free_port()
    environment = {
        **os.environ,
        "GRAFT_VERSIONS": str(of.registry.folder),
        "GRAFT_REDIS_URL": of.redis.url,
        "GRAFT_LOG_LEVEL": "WARNING",
    }
    argv = [sys.executable, "-m", "graft", "student", "serve", "--port", str(port), "--workers", str(workers)]
    with _running(argv, port, of.cores[:workers], environment) as process:
        yield port, process


@contextmanager
def echo_serving(of: World, size: int) -> Iterator[int]:
    """The same Starlette on the same uvicorn, which reads a body and replies one of so many bytes."""
    port = free_port()
    argv = [sys.executable, "-c", scorer.ECHO, str(size), str(port)]
    with _running(argv, port, of.cores[:1], dict(os.environ)):
        yield port


@contextmanager
def floor_serving(of: World, size: int) -> Iterator[int]:
    """The same echo, with a Redis round trip and a bare forward before its reply: `floor_server`."""
    port = free_port()
    module = "benchmarks.serving.floor_server"
    argv = [sys.executable, "-m", module, str(of.registry.folder), of.redis.url, str(size), str(port)]
    with _running(argv, port, of.cores[:1], dict(os.environ)):
        yield port


@contextmanager
def _running(argv: list[str], port: int, cores: list[int], environment: dict[str, str]) -> Iterator[psutil.Process]:
    with ExitStack() as stack:
        child = subprocess.Popen(argv, env=environment)
        stack.callback(child.wait)
        stack.callback(child.terminate)
        os.sched_setaffinity(child.pid, cores)
        wait_until(port, child)
        yield psutil.Process(child.pid)


def wait_until(port: int, child: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Until the server answers a request for scores with 200."""
    deadline = scorer.time.monotonic() + seconds
    while not scorer.answers(port):
        assert child.poll() is None, "a server ended while starting"
        assert scorer.time.monotonic() < deadline, f"no answer in {seconds} s"
        scorer.time.sleep(0.05)


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(t.user + t.system for t in times)
