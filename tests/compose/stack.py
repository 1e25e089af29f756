"""One stack of docker-compose.yml for all tests of this folder, and how to ask it."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "graft-test"
SCALE = ("--scale", "stream=3", "--scale", "teacher=2", "--scale", "scorer=3")
COUNTS = {"stream": 3, "teacher": 2, "scorer": 3, "learner": 1, "archive": 1, "entry": 1, "kafka": 1, "redis": 1}
SECURE = ("--file", "docker-compose.yml", "--file", "docker-compose.secure.yml")
EVENTS = ROOT / "fixtures/simulated/events.jsonl"

_DAY_MS = 86_400_000


def compose(*arguments: str, seconds: float = 120.0) -> str:
    """Standard output of one `docker compose` command; its standard error is in the failure."""
    done = composed(*arguments, seconds=seconds)
    assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def composed(*arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """One `docker compose` command that may fail."""
    command = ["docker", "compose", "--project-name", PROJECT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def up(*files: str, seconds: float = 400.0) -> None:
    """Start what does not run, and wait until all is healthy."""
    compose(*files, "up", "--detach", "--wait", *SCALE, seconds=seconds)


def post_score(user_id: int | str, item_ids: list[int | str]) -> dict:
    """The scorer's reply, asked through the published port."""
    request = urllib.request.Request(
        "http://127.0.0.1:8080/score",
        data=json.dumps({"user_id": user_id, "item_ids": item_ids}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as reply:
        return json.load(reply)


def score_of_first_impression() -> dict:
    impression = first_impressions(1)[0]
    return post_score(impression["user_id"], [impression["item_id"]])


def first_impressions(count: int) -> list[dict]:
    events = map(json.loads, EVENTS.read_text().splitlines())
    return [event for event in events if event["type"] == "impression"][:count]


def later_events(file: Path, days: int, lines: int) -> int:
    """Write the first lines of the fixtures' events as of days later, with ids of their own; how many impressions."""
    events = [json.loads(line) for line in EVENTS.read_text().splitlines()[:lines]]
    for event in events:
        event["impression_id"] = f"d{days}-{event['impression_id']}"
        event["event_time_ms"] += days * _DAY_MS
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    for folder in (file, *file.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o555)
    return sum(event["type"] == "impression" for event in events)


def replay_command(file: Path, *options: str, files: tuple[str, ...] = ()) -> list[str]:
    """The words for `composed` that replay a file of this machine."""
    return [*files, "run", "--rm", "-T", "--volume", f"{file}:/events.jsonl:ro", "replay", "/events.jsonl", *options]


def described() -> list[dict]:
    """The containers that run."""
    return [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]


def inspected() -> list[dict]:
    """What the engine says of every container, also of those that have ended."""
    names = compose("ps", "--all", "--quiet").split()
    return json.loads(subprocess.run(["docker", "inspect", *names], capture_output=True, check=True).stdout)


def are_healthy() -> bool:
    """Whether all processes run and are ready."""
    health = sorted((one["Service"], one["Health"]) for one in described() if one["Service"] in COUNTS)
    return health == sorted((service, "healthy") for service, count in COUNTS.items() for _ in range(count))


def redis(*command: str) -> str:
    """Redis' reply to the user who may do everything."""
    shell = 'REDISCLI_AUTH="$(cat /run/secrets/default)" exec redis-cli "$@"'
    return compose("exec", "-T", "redis", "sh", "-c", shell, "sh", *command).strip()


def metric(service: str, name: str, number: int = 1) -> float:
    """A metric of one process."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9100/metrics').read().decode())"
    text = compose("exec", "-T", "--index", str(number), service, "python3", "-c", code)
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def learnt() -> int:
    """How many examples the learner has learnt since the first version."""
    return int(metric("learner", "graft_student_learned_examples"))


def learnt_at_rest(at_least: int, quiet_seconds: float = 5.0) -> int:
    """How many examples have been learnt once there are so many and no more come."""
    await_that(lambda: learnt() >= at_least)
    last = learnt()
    time.sleep(quiet_seconds)
    while (now := learnt()) != last:
        last = now
        time.sleep(quiet_seconds)
    return last


def await_that(what: Callable[[], object], seconds: float = 120.0) -> None:
    """Return when `what` is true; a command that fails meanwhile is not."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            last = str(error)
        time.sleep(0.5)
    pytest.fail(f"not so within {seconds} s; {last[-2000:]}")
