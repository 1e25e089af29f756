"""The processes after the stream, as commands, where Kafka is away when they start."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from features.repo.store import apply
from graft.project import load_project
from lab.embedded import EmbeddedKafka, free_port
from runtime.child import start_child, stop_child
from tests.stream.conftest import await_that

_GRAFT = [sys.executable, "-m", "graft"]
_COMMANDS = (["teacher", "run"], ["student", "train"], ["stream", "archive", "LOG"])


@contextmanager
def _running(environment: dict[str, str], folder: Path, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The commands, whose health is served at `port` and the two ports above it."""
    children = []
    for number, command in enumerate(_COMMANDS):
        own = environment | {"GRAFT_METRICS_PORT": str(port + number)}
        with (folder / f"{command[0]}.log").open("wb") as log:
            children.append(start_child([*_GRAFT, *command], cwd=folder, env=own, stdout=log, stderr=log))
    try:
        yield children
    finally:
        for child in children:
            stop_child(child, 20)


def _readiness(port: int) -> Any:
    """What /readyz says; "" while nobody answers there yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return json.loads(reply.read())["status"]
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read())["reason"]
    except OSError:
        return ""


@pytest.fixture
def environment(sound_project: Path, redis_url: str) -> dict[str, str]:
    """Of a Kafka that is not there."""
    names = {
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_KAFKA": f"127.0.0.1:{free_port()}",
        "GRAFT_REDIS_URL": redis_url,
        "GRAFT_VERSIONS": str(sound_project / "versions"),
    }
    return {**os.environ, **names}


@pytest.mark.timeout(240)  # an import of torch on a busy machine
def test_who_starts_while_kafka_is_away_waits_for_it_and_says_so(
    environment: dict[str, str], sound_project: Path
) -> None:
    project = load_project(sound_project)
    apply(project.repo, environment["GRAFT_REDIS_URL"], project.features)
    port, kafka = free_port(3), environment["GRAFT_KAFKA"]
    waits = f"Kafka at {kafka} does not answer"

    def told() -> list[Any]:
        return [_readiness(port + number) for number in range(3)]

    with _running(environment, sound_project, port) as children:
        await_that(lambda: all(reason.startswith(waits) for reason in told()), 90, lambda: str(told()))
        assert all("this process begins when it is back" in reason for reason in told())
        with EmbeddedKafka(port=int(kafka.partition(":")[2])):
            await_that(lambda: told() == ["ready"] * 3, 60, lambda: str(told()))
            assert [stop_child(child, 20) for child in children] == [0, 0, 0]


def test_a_stop_ends_who_waits_for_kafka(environment: dict[str, str], sound_project: Path) -> None:
    command = [*_GRAFT, "stream", "archive", "LOG"]
    with subprocess.Popen(command, cwd=sound_project, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"does not answer" in process.stderr.readline()
        process.terminate()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
