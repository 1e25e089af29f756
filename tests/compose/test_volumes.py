"""deploy/volumes.sh: all volumes are lost and restored, and the student goes on where it was. After TLS, without it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.compose.stack import (
    PROJECT,
    ROOT,
    await_that,
    compose,
    later_events,
    learnt,
    learnt_at_rest,
    metric,
    redis,
    replay_command,
    score_of_first_impression,
    up,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


def volumes(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "deploy/volumes.sh"), *words]
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_volumes_of_a_running_stack_and_backups_that_lack_a_file_are_refused(replayed: str, tmp_path: Path) -> None:
    running = volumes("save", str(tmp_path / "backup"))
    assert (running.returncode, running.stdout) == (1, "")
    assert running.stderr == f"error: the stack '{PROJECT}' runs; stop it first: docker compose stop\n"


def test_what_was_saved_is_there_again_after_all_volumes_are_lost(replayed: str, tmp_path: Path) -> None:
    before, keys = learnt_at_rest(3000), int(redis("dbsize"))
    version = int(metric("learner", "graft_student_version"))
    compose("stop", seconds=180)
    backup = str(tmp_path / "backup")
    saved = volumes("save", backup)
    assert saved.returncode == 0, saved.stderr
    assert {path.stat().st_mode & 0o077 for path in Path(backup).iterdir()} == {0}
    compose("down", "--volumes", "--remove-orphans", seconds=180)
    missing = volumes("restore", backup, "redis", "nothing")
    assert missing.returncode == 1
    assert "nothing.tar is missing or empty; nothing was changed" in missing.stderr

    restored = volumes("restore", backup)
    assert restored.returncode == 0, restored.stderr
    up()
    await_that(lambda: learnt() >= before)
    assert learnt() == before
    assert abs(int(redis("dbsize")) - keys) <= 2  # counts of the last seconds
    assert int(metric("learner", "graft_student_version")) >= version
    impressions = later_events(tmp_path / "events.jsonl", days=6, lines=500)
    compose(*replay_command(tmp_path / "events.jsonl"), seconds=180)
    await_that(lambda: learnt() == before + impressions)
    assert score_of_first_impression()["degraded"] is False
