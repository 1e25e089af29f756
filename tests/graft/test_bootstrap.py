"""``graft student bootstrap`` on a real project, Feast and Redis."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from graft.cli import cli
from student.versions.registry import Registry


@pytest.fixture
def environment(sound_project: Path, redis_url: str) -> dict[str, str]:
    """A project whose table knows forty users; a bootstrap of all rows."""
    data = sound_project / "feature_repo" / "data"
    data.mkdir()
    day = datetime(2026, 1, 1, tzinfo=UTC)
    ages = pa.array([n / 10 - 2 for n in range(40)], pa.float32())
    pq.write_table(pa.table({"user_id": range(40), "age": ages, "event_timestamp": [day] * 40}), data / "users.parquet")
    with (sound_project / "graft.toml").open("a") as file:
        file.write("\n[bootstrap]\nrows = 1000\nsteps = 100\n")
    return {
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_REDIS_URL": redis_url,
        "GRAFT_VERSIONS": str(sound_project / "versions"),
    }


def test_day_zero_publishes_what_the_teacher_knows(environment: dict[str, str], sound_project: Path) -> None:
    def graft(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, [*arguments], env=environment)
        return result.exit_code, result.output

    assert graft("features", "apply")[0] == graft("features", "materialize")[0] == 0

    code, output = graft("student", "bootstrap")
    assert (code, "needs users and items that are known by" in output, "got 40 users, 0 items" in output) == (
        1,
        True,
        True,
    )

    assert "got 0 users, 0 items" in graft("student", "bootstrap", "--until", "2025-12-31")[1]

    events = sound_project / "events.jsonl"
    lines = [
        {"type": "impression", "impression_id": f"m{n}", "user_id": n, "item_id": f"i{n % 5}", "event_time_ms": n}
        for n in range(40)
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = CliRunner().invoke(cli, ["student", "bootstrap", "--events", str(events), "--json"], env=environment)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {key: report[key] for key in ("version", "rows", "users", "items", "steps")} == {
        "version": "v000001",
        "rows": 200,
        "users": 40,
        "items": 5,
        "steps": 100,
    }
    manifest = Registry(Path(environment["GRAFT_VERSIONS"])).load_manifest("v000001")
    assert (manifest.bootstrapped_rows, manifest.examples) == (200, 0)

    assert "got 0 users, 0 items" in graft("student", "bootstrap", "--events", str(events), "--until", "1969-12-31")[1]
    toml = sound_project / "graft.toml"
    toml.write_text(toml.read_text().replace("[teacher]\n", "[teacher]\ntrained_until = 1970-01-02T00:00:00Z\n"))
    code, output = graft("student", "bootstrap", "--events", str(events), "--until", "1970-01-01T23:59:59Z")
    assert (code, "lies before teacher.trained_until, 1970-01-02T00:00:00+00:00" in output) == (1, True)
    code, output = graft("student", "bootstrap", "--events", str(events))
    assert (code, "a bootstrap is for an empty registry" in output) == (1, True)
