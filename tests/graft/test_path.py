"""The commands of the path, each its own process as in production, from events to a score."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from graft.cli import cli
from lab.embedded import free_port
from runtime.child import start_child, stop_child
from runtime.redis import connect
from student.versions.registry import Registry

_GRAFT = [sys.executable, "-m", "graft"]
_STAGES = (["stream", "run"], ["teacher", "run"], ["student", "train"], ["student", "serve"])
_FAST = """
[stream]
topic_prefix = "PREFIX"
idle_seconds = 0.3
[student]
micro_batch = 1
[publish]
every_seconds = 0.1
"""
_NOON_MS = 1_767_268_800_000
_EVENTS = [
    *(
        {
            "type": "impression",
            "impression_id": f"i{n}",
            "user_id": n,
            "item_id": "ab"[n % 2],
            "event_time_ms": _NOON_MS + n,
        }
        for n in range(4)
    ),
    {"type": "feedback", "impression_id": "i2", "task": "like", "value": 1, "event_time_ms": _NOON_MS + 5},
    {"type": "noise"},
]
_SENT = {"impressions": 4, "feedback": 1, "unreadable": 1}


def _here(environment: dict[str, str], *arguments: str) -> Any:
    """As `_graft` has it, of a command that reads alone, in this process."""
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=environment)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _graft(environment: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run(
        [*_GRAFT, *arguments, "--json"], env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def _running(environment: dict[str, str], logs: Path, metrics_port: int) -> Iterator[None]:
    """All stages; those before the scorer serve their health at `metrics_port` and the two ports above it."""
    children, ports = [], [metrics_port + number for number in range(3)]
    for stage in _STAGES:
        own = environment | ({"GRAFT_METRICS_PORT": str(ports.pop())} if stage[1] != "serve" else {})
        with (logs / f"{stage[0]}-{stage[1]}.log").open("wb") as log:
            children.append(start_child([*_GRAFT, *stage], env=own, stdout=log, stderr=log))
    try:
        yield
    finally:
        codes = [stop_child(child, 20) for child in children]
    assert codes == [0, 0, 0, 0], [path.read_text()[-1000:] for path in logs.glob("*.log")]


@pytest.mark.timeout(240)  # six imports of Feast or torch on a busy machine
def test_events_become_scores(sound_project: Path, redis_url: str, kafka: str, topic_prefix: str) -> None:
    toml = (sound_project / "graft.toml").read_text().replace("window_seconds = 60", "window_seconds = 1")
    (sound_project / "graft.toml").write_text(toml + _FAST.replace("PREFIX", topic_prefix))
    (sound_project / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _EVENTS))
    port, metrics_port = free_port(), free_port(3)
    environment = {
        **os.environ,
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_KAFKA": kafka,
        "GRAFT_REDIS_URL": redis_url,
        "GRAFT_VERSIONS": str(sound_project / "versions"),
        "GRAFT_HTTP_PORT": str(port),
    }
    assert _graft(environment, "features", "apply")["dense_columns"] == 1
    with _running(environment, sound_project, metrics_port):
        sent = _graft(environment, "replay", str(sound_project / "events.jsonl"))
        assert {name: sent[name] for name in ("impressions", "feedback", "unreadable")} == _SENT
        newest = _wait_for_examples(Registry(sound_project / "versions"), 4)
        assert _score_by(newest, port)["degraded"] is False
        assert _here(environment, "student", "ls")[-1]["version"] == newest
        assert [_readiness(metrics_port + number) for number in range(3)] == [{"status": "ready"}] * 3
        report = _here(environment, "teacher", "backfill", "--since", "1d", "--dry-run")
        assert (report["rows"], report["defaulted_share"]) == (4, 0.5)
    with connect(redis_url) as client:
        keys = client.keys("graft:logits:*")
        live = {key: client.hkeys(key) for key in keys}
        client.delete(*keys)
        assert _graft(environment, "teacher", "backfill", "--since", "1d")["rows"] == report["rows"]
        assert {key: client.hkeys(key) for key in client.keys("graft:logits:*")} == live


def _wait_for_examples(registry: Registry, examples: int) -> str:
    deadline = time.monotonic() + 100
    found = 0
    while time.monotonic() < deadline:
        newest = registry.latest()
        found = registry.load_manifest(newest).examples if newest else 0
        if newest and found >= examples:
            assert found == examples
            return newest
        time.sleep(0.1)  # another process writes the folder
    raise AssertionError(f"no version with {examples} examples, but {found}")


def _readiness(port: int) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
        return json.loads(reply.read())


def _score_by(version: str, port: int) -> dict[str, Any]:
    """The scorer's reply, once `version` gives it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/score",
        data=json.dumps({"user_id": 1, "item_ids": ["a", "new"]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with urllib.request.urlopen(request, timeout=5) as reply:
            scores = json.load(reply)
        if scores["model_version"] == version:
            return dict(scores)
    raise AssertionError(f"{version} does not serve, but {scores}")
