"""The profile `observe`: every instance is scraped, no rule has an error, and the dashboard's panels have data."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.compose.stack import (
    COUNTS,
    await_that,
    compose,
    composed,
    later_events,
    replay_command,
    score_of_first_impression,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

_QUIET = {"Alerts that fire", "Dead letters", "Served rows that differ from their example", "Drift of the columns"}
"""Panels that may be empty while all is well and no request names its impression."""


def is_here(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def asked(path: str) -> dict:
    """What Prometheus answers inside its container, which no port leads to."""
    text = compose("exec", "-T", "prometheus", "wget", "-qO-", f"http://127.0.0.1:9090/api/v1/{path}")
    reply: dict = json.loads(text)["data"]
    return reply


@pytest.fixture(scope="module")
def prometheus(replayed: str) -> None:
    services = json.loads(compose("--profile", "observe", "config", "--format", "json"))["services"]
    wanted = {name: services[name]["image"] for name in ("prometheus", "grafana")}
    here = [name for name, image in wanted.items() if is_here(image)]
    if "prometheus" not in here:
        pytest.skip(f"no image {wanted['prometheus']} here")
    compose("--profile", "observe", "up", "--detach", "--wait", "--no-recreate", "--no-deps", *here, seconds=300)


def test_every_instance_of_every_process_is_scraped(prometheus: None) -> None:
    wanted = sorted(
        job for job, count in COUNTS.items() if job not in {"entry", "kafka", "redis"} for _ in range(count)
    )
    await_that(lambda: [t for t in asked("targets")["activeTargets"] if t["health"] == "up"], 60)
    await_that(
        lambda: sorted(t["labels"]["job"] for t in asked("targets")["activeTargets"] if t["health"] == "up") == wanted,
        60,
    )


def test_no_rule_has_an_error(prometheus: None) -> None:
    await_that(lambda: all(r["health"] == "ok" for g in asked("rules")["groups"] for r in g["rules"]), 60)
    assert [
        rule["name"] for group in asked("rules")["groups"] for rule in group["rules"] if rule.get("lastError")
    ] == []


def test_the_panels_are_drawn_by_the_page_of_our_own(prometheus: None, tmp_path: Path) -> None:
    later_events(tmp_path / "events.jsonl", days=4, lines=500)
    compose(*replay_command(tmp_path / "events.jsonl"), seconds=180)

    def page() -> str:
        score_of_first_impression()
        done = composed("--profile", "observe", "run", "--rm", "-T", "--no-deps", "dashboard", "--minutes", "5")
        assert done.returncode == 0, done.stderr
        empty = done.stderr.strip().splitlines()[-1].partition("without data: ")[2]
        missing = {title for title in empty.split(", ") if title != "none"} - _QUIET
        assert not missing, missing
        return done.stdout

    await_that(page, 90)
