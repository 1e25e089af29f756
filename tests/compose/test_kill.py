"""kill -9 of each process while events come, then of Kafka and Redis: all come back by themselves, nothing is lost."""

import subprocess
from pathlib import Path

import pytest

from tests.compose.stack import (
    COUNTS,
    PROJECT,
    ROOT,
    are_healthy,
    await_that,
    compose,
    inspected,
    later_events,
    learnt,
    replay_command,
    score_of_first_impression,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

_LINES = 1500


def kill(*services: str) -> None:
    """kill -9 of all instances; of the first scorer alone. Not `docker kill`: the engine would take that for a stop."""
    pids = [
        one["State"]["Pid"]
        for one in inspected()
        if (service := _service(one)) in services and (service != "scorer" or one["Name"].endswith("-1"))
    ]
    code = f"import os; [os.kill(pid, 9) for pid in {pids}]"
    command = ["docker", "run", "--rm", "--pid=host", "--user=0", "--entrypoint=python3", "graft-scorer", "-c", code]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _service(container: dict) -> str:
    name: str = container["Config"]["Labels"]["com.docker.compose.service"]
    return name


def restarts() -> dict[str, int]:
    """How often each service's containers have been started again."""
    found: dict[str, int] = {}
    for one in inspected():
        found[_service(one)] = found.get(_service(one), 0) + one["RestartCount"]
    return found


def test_every_process_is_killed_while_events_come_and_each_example_is_learnt_once(
    replayed: str, tmp_path: Path
) -> None:
    await_that(lambda: learnt() == 3000)  # the fixtures' impressions
    impressions = later_events(tmp_path / "events.jsonl", days=2, lines=_LINES)
    before = restarts()
    command = [
        "docker",
        "compose",
        "--project-name",
        PROJECT,
        *replay_command(tmp_path / "events.jsonl", "--rate", "150"),
    ]
    with (tmp_path / "replay.log").open("wb") as log:
        sending = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        await_that(lambda: learnt() > 3000)
        kill("stream", "teacher", "learner", "archive", "scorer")
        assert score_of_first_impression()["scores"]  # the other two answer
        assert sending.wait(120) == 0, (tmp_path / "replay.log").read_text()
    finally:
        sending.kill()
        sending.wait()

    await_that(are_healthy, 300)  # the learner imports torch and compiles its loops
    await_that(lambda: learnt() == 3000 + impressions)
    after = restarts()
    killed = ("stream", "teacher", "learner", "archive", "scorer")
    assert {service: after[service] - before[service] for service in killed} == {
        name: COUNTS[name] for name in killed
    } | {"scorer": 1}


def test_kafka_and_redis_are_killed_and_all_goes_on(replayed: str, tmp_path: Path) -> None:
    before = learnt()
    impressions = later_events(tmp_path / "events.jsonl", days=3, lines=500)
    kill("kafka", "redis")
    assert score_of_first_impression()["scores"]
    await_that(are_healthy, 300)
    compose(*replay_command(tmp_path / "events.jsonl"), seconds=180)
    await_that(lambda: learnt() == before + impressions)
    assert score_of_first_impression()["degraded"] is False
