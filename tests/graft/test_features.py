"""``graft features collect`` as its own process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from features.aggregates import Aggregates
from features.repo.push_log import PushLog
from features.repo.store import apply, open_store, pushed_tables
from graft.cli import cli
from graft.project import load_project
from tests.features.examples import count_example

_NOWHERE = "redis://127.0.0.1:1/0"
_COLLECT = ["features", "collect"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The fixtures, applied."""
    folder = tmp_path / "pair"
    shutil.copytree(Path(__file__).parents[2] / "fixtures" / "simulated", folder)
    project = load_project(folder)
    apply(project.repo, _NOWHERE, project.features)
    return folder


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "GRAFT_PROJECT": str(folder), "GRAFT_REDIS_URL": _NOWHERE}


def _collect(folder: Path) -> Any:
    command = [sys.executable, "-m", "graft", *_COLLECT, "--json"]
    done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_collect_brings_the_push_log_into_the_tables_that_apply_has_made_and_needs_no_redis(folder: Path) -> None:
    project = load_project(folder)
    log = PushLog(pushed_tables(open_store(project.repo, _NOWHERE)), project.features.aggregates)
    log.begin("a state")
    aggregates = Aggregates(project.features.aggregates)
    count_example(aggregates, "listener-0001", 10_001, {"click": 1.0, "dwell": None}, 1_000)
    log.append(aggregates, aggregates.changed(), 2_000)
    log.close()

    one, none = {"rows": 2, "entities": 1, "log_rows": 1}, {"rows": 0, "entities": 0, "log_rows": 0}
    counted = {"listener_activity.parquet": one, "track_activity.parquet": one}
    profiles = {"listener_teacher.parquet": none, "track_teacher.parquet": none}
    assert _collect(folder) == counted | profiles
    again = CliRunner().invoke(cli, [*_COLLECT, "--keep", "0.5"], env=_environment(folder))
    assert "track_activity.parquet: 2 rows of 1 entities; 0 in the log" in again.stdout
