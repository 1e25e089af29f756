"""What a scorer has loaded while it runs: with a version, after a request."""

import json
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

from lab.embedded import free_port
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, publish

_PROGRAM = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print(*sys.modules, flush=True))
from graft.cli import main
main()
"""
_HEAVY = {"torch", "feast", "kafka", "pandas", "pyarrow", "onnxruntime"}


def _answer(port: int, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, json.dumps(body) if body else None)
    reply = connection.getresponse()
    status, answer = reply.status, json.loads(reply.read())
    connection.close()
    return status, answer


def _wait_until_ready(port: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if _answer(port, "GET", "/readyz")[0] == 200:
                return
        except ConnectionError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready within {seconds:g} s")


def test_a_running_scorer_has_neither_torch_feast_kafka_pandas_nor_arrow(redis_url: str, tmp_path: Path) -> None:
    version, port = publish(Registry(tmp_path)), free_port()
    variables = {"GRAFT_VERSIONS": str(tmp_path), "GRAFT_HTTP_PORT": str(port), "GRAFT_REDIS_URL": redis_url}
    command, environment = [sys.executable, "-c", _PROGRAM, "student", "serve"], {**os.environ, **variables}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            _wait_until_ready(port)
            status, answer = _answer(port, "POST", "/score", BODY)
            assert (status, answer["model_version"]) == (200, version)
            process.send_signal(signal.SIGUSR1)
            assert process.stdout is not None
            modules = set(process.stdout.readline().split())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert {"numpy", "uvicorn", "student.serve.swap"} <= modules
    assert not _HEAVY & modules
