"""``graft teacher backfill --profiles``, from the batch tables to the features that an impression reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from features.online.reader import OnlineReader
from features.spec import load_spec
from graft.cli import cli
from graft.project import load_project

_FIXTURE = Path(__file__).parents[2] / "fixtures" / "simulated"


def _graft(folder: Path, redis_url: str, *arguments: str) -> Any:
    """What the command prints, in this process: Feast is imported once."""
    environment = {"GRAFT_PROJECT": str(folder), "GRAFT_REDIS_URL": redis_url}
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_id_of_the_tables_has_a_profile_before_the_first_event(tmp_path: Path, redis_url: str) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(_FIXTURE, folder)
    _graft(folder, redis_url, "features", "apply")
    rows = _graft(folder, redis_url, "features", "materialize")
    assert _graft(folder, redis_url, "teacher", "backfill", "--profiles")["ids"] == sum(rows.values())
    assert _graft(folder, redis_url, "teacher", "backfill", "--profiles")["ids"] == 0

    spec = load_spec(load_project(folder).repo)
    users, items = [f"listener-{n:04}" for n in range(1, 6)], [10_000 + n for n in range(1, 6)]
    columns = OnlineReader(spec, redis_url).read_at(users, items, [{}] * 5, [1] * 5)
    for feature in spec.features:
        if feature.profile_of:
            values = np.array(columns[feature.name], np.float64)
            assert np.isfinite(values).all(), feature.name
            assert values.std() > 0, feature.name

    collected = _graft(folder, redis_url, "features", "collect")
    assert collected["track_teacher.parquet"]["log_rows"] == rows["track"]
    found = _graft(folder, redis_url, "reset", "--cache", "--yes")["cache"]
    assert found["profiles"] == sum(rows.values())
    columns = OnlineReader(spec, redis_url).read(users, items, [{}] * 5)
    assert columns["track_teacher:play"] == [None] * 5
    assert None not in columns["track:tempo"]
