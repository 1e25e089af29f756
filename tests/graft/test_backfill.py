"""``graft teacher backfill`` as people use it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from features.spec import load_spec
from graft.cli import cli
from stream.events import Example
from stream.log.example_file import write
from stream.log.examples import ExampleRecord

CACHED = ("teacher", "explain", "--cached", "--user")


def _graft(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments], env=environment)


def _write_log(folder: Path, spec_id: str) -> None:
    """Ten examples, one an hour, of one user with ten items and the age n."""
    records = [
        ExampleRecord(
            0,
            n,
            Example(
                impression_id=f"i{n}",
                user_id=1,
                item_id=f"a{n}",
                event_time_ms=n * 3_600_000,
                context={},
                spec_id=spec_id,
                features=[float(n), 1, f"a{n}"],
                labels={"like": 1.0},
            ),
        )
        for n in range(10)
    ]
    write(folder, 0, records)


def test_a_log_and_a_file_of_rows_fill_the_cache(
    sound_project: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"GRAFT_PROJECT": str(sound_project), "GRAFT_REDIS_URL": redis_url}
    assert _graft(environment, "features", "apply").exit_code == 0
    log, rows = tmp_path / "log", tmp_path / "rows.parquet"
    _write_log(log, load_spec(sound_project / "feature_repo").spec_id)
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": ["a0", "b"]}), rows)
    backfill = "teacher", "backfill", "--json"

    some = "--from", str(log), "--since", "1970-01-01T02:00:00Z", "--until", "1970-01-01T06:00:00Z"
    dry = json.loads(_graft(environment, *backfill, *some, "--dry-run").stdout)
    assert (dry["rows"], dry["hit_rate_before"], dry["hit_rate_after"]) == (4, 0.0, 1.0)
    assert json.loads(_graft(environment, "teacher", "ls", "current", "--json").stdout)["rows"] == 0
    assert json.loads(_graft(environment, *backfill, *some).stdout)["rows"] == 4
    missing = json.loads(_graft(environment, *backfill, "--from", str(log), "--missing-only").stdout)
    assert (missing["rows"], missing["hit_rate_before"], missing["hit_rate_after"]) == (6, 0.4, 1.0)
    (found,) = json.loads(_graft(environment, *CACHED, "1", "--item", "a7", "--json").stdout)
    assert found["logits"] == {"like": 7.0}

    done = _graft(environment, "teacher", "backfill", "--rows", str(rows))
    assert done.exit_code == 0, done.output
    assert "put the logits of 2 rows in" in done.stdout
    assert "hit rate of the 2 rows read: 50.0% before, 100.0% after" in done.stdout

    told = _graft(environment, "teacher", "explain", "--user", "1", "--item", "a7")
    assert told.stdout.splitlines()[1:] == [
        "  age = 30.0: users:age is missing, so the default",
        "  history = 0.0: the default of every row",
        "  like: 100.0 % (logit 30); on average 100.0 % (logit 9.545) over 11 cached rows",
    ]
    explained = json.loads(_graft(environment, "teacher", "explain", "--user", "1", "--item", "a7", "--json").stdout)
    assert [(one["name"], one["fell_back"]) for one in explained["inputs"]] == [("age", True), ("history", False)]
    for odd in (("--user", "x"), ("--user", "1", "--context", "hour=3")):
        assert _graft(environment, "teacher", "explain", *odd, "--item", "a").exit_code == 1

    class Stopped(BaseException):
        """A kill, as far as it goes in one process."""

    def killed(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("teacher_cache.backfill.backfill.BATCH_ROWS", 4)
        patch.setattr("teacher_cache.backfill.backfill.BatchFiller.keep_pace", killed)
        patch.setitem(backfill_defaults(), "batch_rows", 4)
        assert isinstance(_raised(environment, *backfill, "--from", str(log)), Stopped)
    resumed = _graft(environment, *backfill, "--from", str(log), "--resume")
    assert "goes on after 4 of 10" in resumed.stderr
    assert json.loads(resumed.stdout)["read"] == 6
    again = _graft(environment, *backfill, "--from", str(log), "--resume")
    assert "nothing of it was noted" in again.stderr
    assert json.loads(again.stdout)["read"] == 10


def backfill_defaults() -> dict[str, object]:
    """The keyword defaults of `backfill`."""
    from teacher_cache.backfill.backfill import backfill  # noqa: PLC0415 - as the command does

    assert backfill.__kwdefaults__ is not None
    return backfill.__kwdefaults__


def _raised(environment: dict[str, str], *arguments: str) -> BaseException | None:
    try:
        return CliRunner().invoke(cli, [*arguments], env=environment, catch_exceptions=False).exception
    except BaseException as error:  # noqa: BLE001 - what a kill is here
        return error


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give one of --since WHEN, --from LOG, --events FILE, --rows FILE and --profiles"),
        (["--until", "3d"], "give one of"),
        (["--rows", "graft.toml", "--events", "graft.toml"], "give one of"),
        (["--rows", "graft.toml", "--since", "3d"], "--rows have no time"),
        (["--since", "soon"], "--since: must be an ISO 8601 time"),
        (["--since", "3y"], "--since: must be a number with s, m, h or d"),
        (["--since", "3d", "--until", "2026-13-01"], "--until: must be an ISO 8601 time"),
        (["--since", "3d", "--until", "30d"], "--since 3d is not before --until 30d"),
        (["--since", "3d", "--max-rows-per-second", "0"], "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_are_refused(
    sound_project: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(sound_project)
    result = _graft({"GRAFT_PROJECT": str(sound_project)}, "teacher", "backfill", *options)
    assert (result.exit_code, told in result.output) == (2, True), result.output
