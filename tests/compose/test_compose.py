"""`docker compose up` for real, on the fixtures pair: the proof that the images, health checks and volumes fit.

Run by `make test-compose`; left out of `make test`, which needs no Docker.
"""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

_ROOT = Path(__file__).parents[2]
_PROJECT = "graft-test"
_PUBLISHED_WITHIN_SECONDS = 120.0


def compose(*arguments: str, seconds: float = 120.0) -> str:
    """Standard output of one `docker compose` command; its standard error is in the failure."""
    done = subprocess.run(
        ["docker", "compose", "--project-name", _PROJECT, *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def post_score(user_id: int | str, item_ids: list[int | str]) -> dict:
    """The scorer's reply, asked through the published port."""
    request = urllib.request.Request(
        "http://127.0.0.1:8080/score",
        data=json.dumps({"user_id": user_id, "item_ids": item_ids}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.load(reply)


def first_impressions(count: int) -> list[dict]:
    lines = (_ROOT / "fixtures/simulated/events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == "impression"][:count]


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    """The stack, up and healthy; its logs are printed when a test fails, and it leaves no volume behind."""
    compose("build", seconds=1200)
    try:
        compose("up", "--wait", "--wait-timeout", "240", "--scale", "stream=2", "--scale", "teacher=2", seconds=300)
        yield
    finally:
        sys.stderr.write(compose("logs", "--no-color", "--tail", "40"))
        compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def replayed(stack: None) -> str:
    return compose("run", "--rm", "-T", "replay", "/project/events.jsonl", seconds=300)


def wait_for_trained_version(user_id: int | str, item_ids: list[int | str]) -> dict:
    """The first reply of a version that has learnt from the replay: one later than the untrained v000001."""
    deadline = time.monotonic() + _PUBLISHED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        reply = post_score(user_id, item_ids)
        if reply["model_version"] > "v000001":
            return reply
        time.sleep(0.5)
    pytest.fail(f"no version learnt from the replay within {_PUBLISHED_WITHIN_SECONDS} s; last reply {reply}")


def test_a_replayed_stream_is_learnt_published_and_answered_from(replayed: str) -> None:
    impressions = first_impressions(20)
    user_id, item_ids = impressions[0]["user_id"], [event["item_id"] for event in impressions]

    reply = wait_for_trained_version(user_id, item_ids)

    assert reply["degraded"] is False
    assert reply["item_ids"] == item_ids
    assert reply["scores"]
    for scores in reply["scores"].values():
        assert len(scores) == len(item_ids)
        assert len(set(scores)) > 1  # a learnt student tells items apart


def test_processes_of_one_service_need_no_names_and_do_not_throw_each_other_out(replayed: str) -> None:
    """The pair has one partition: of each two one works, and the other one waits to take over."""
    described = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]
    for service in ("stream", "teacher"):
        assert [d["Health"] for d in described if d["Service"] == service] == ["healthy"] * 2
    assert "has joined and taken over" not in compose("logs", "--no-color", "stream", "teacher")


def test_no_secret_and_no_traceback_stands_in_the_logs(replayed: str) -> None:
    logs = compose("logs", "--no-color", "stream", "teacher", "learner", "scorer")

    assert "Traceback" not in logs
    assert not re.search(r"redis://[^\s/]*:[^\s/]*@", logs)


def test_ports_are_published_on_loopback_only(stack: None) -> None:
    described = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]

    published = {p["URL"] for service in described for p in service["Publishers"] or [] if p["PublishedPort"]}
    assert published == {"127.0.0.1"}


def test_the_containers_do_not_run_as_root(stack: None) -> None:
    for service in ("stream", "teacher", "learner", "scorer"):
        assert compose("exec", "-T", service, "id", "-u").strip() != "0"
