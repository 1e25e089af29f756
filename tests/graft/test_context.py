"""A teacher that sees a context, as people meet it: in `graft check`, in a backfill, and in the cache."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from runtime.redis import connect

_HOUR = """
[features.context.hour]
dtype = "int"
default = 12
[features.context.device]
dtype = "str"
default = "phone"
"""

CACHED = ("teacher", "explain", "--cached", "--user")


@pytest.fixture
def project(sound_project: Path) -> Path:
    """The sound project whose teacher adds the hour to the age; it does not see the device."""
    path = sound_project / "graft.toml"
    text = path.read_text()
    text = text.replace('kind = "default"\ndefault = 0.0', 'kind = "feature"\nfeature = "context:hour"\ndefault = 0.5')
    text = text.replace('"item_id"]', '"item_id", "context:hour", "context:device"]')
    path.write_text(text.replace("[teacher]", f"{_HOUR}\n[teacher]", 1))
    return sound_project


@pytest.fixture
def graft(project: Path, redis_url: str) -> Any:
    """Runs a command of the project."""
    from graft.cli import cli  # noqa: PLC0415 - a fixture of the same name

    environment = {"GRAFT_PROJECT": str(project), "GRAFT_REDIS_URL": redis_url}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments], env=environment)

    assert run("features", "apply").exit_code == 0
    return run


def _impression(n: int, **context: Any) -> str:
    ids = {"impression_id": f"i{n}", "user_id": 1, "item_id": "a", "event_time_ms": n}
    return json.dumps({"type": "impression", **ids, "context": context})


def test_each_contexts_logit_is_put_counted_and_shown(graft: Any, project: Path, redis_url: str) -> None:
    checked = graft("check")
    assert "  a logit for each user, item and context:hour" in checked.stdout.splitlines()
    events = project / "events.jsonl"
    lines = [_impression(0, hour=8), _impression(1, hour=21, device="car"), _impression(2), _impression(3, hour=8)]
    events.write_text("\n".join(lines))
    report = json.loads(graft("teacher", "backfill", "--events", str(events), "--json").stdout)
    assert (report["rows"], report["read"]) == (3, 4)

    (row,) = json.loads(graft("teacher", "ls", "--json").stdout)
    assert (row["users"], row["rows"], row["context"]) == (1, 3, ["context:hour"])
    found = json.loads(graft(*CACHED, "1", "--item", "a", "--json").stdout)
    assert sorted(one["logits"]["like"] for one in found) == [30.5, 38.0, 51.0]
    assert len({one["context"] for one in found}) == 3
    (evening,) = json.loads(graft(*CACHED, "1", "--item", "a", "--context", "hour=21", "--json").stdout)
    assert (evening["logits"], evening["is_used"]) == ({"like": 51.0}, True)
    (timeless,) = json.loads(graft(*CACHED, "1", "--item", "a", "--context", "device=tv", "--json").stdout)
    assert timeless["logits"] == {"like": 30.5}
    told = graft(*CACHED, "1", "--item", "a", "--context", "hour=21").stdout
    assert f" (current) in context {evening['context']} " in told
    nothing = graft(*CACHED, "1", "--item", "a", "--context", "hour=3")
    assert nothing.stdout == "no generation has a logit of this user and item in this context\n"
    wrong = graft(*CACHED, "1", "--item", "a", "--context", "minute=3")
    assert wrong.exit_code == 1
    assert "--context: must be NAME=VALUE with a name of hour, device, got 'minute=3'" in wrong.output

    rows = project / "rows.parquet"
    pq.write_table(pa.table({"user_id": [1], "item_id": ["a"]}), rows)
    timeless = graft("teacher", "backfill", "--rows", str(rows))
    assert f"{rows} has no column hour, which the teacher sees" in timeless.stderr
    assert "hit rate of the 1 rows read: 100.0% before" in timeless.stdout
    pq.write_table(pa.table({"user_id": [1], "item_id": ["a"], "hour": [8]}), rows)
    assert "has no column" not in graft("teacher", "backfill", "--rows", str(rows)).stderr

    again = json.loads(graft("teacher", "backfill", "--events", str(events), "--missing-only", "--json").stdout)
    assert (again["rows"], again["hit_rate_before"]) == (0, 1.0)
    assert json.loads(graft("teacher", "ls", "current", "--json").stdout)["rows"] == 3
    with connect(redis_url) as client:
        assert len(client.keys("graft:logits:*")) == 3  # type: ignore[arg-type]
        assert graft("reset", "--cache", "--yes").exit_code == 0
        assert client.keys("graft:logits:*") == []
