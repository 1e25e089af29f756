"""`graft replay --dry-run` on a project of which nothing was applied."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graft.cli import cli

DAY_MS = 1_767_268_800_000


def dry_run(project: Path, events: Path, *options: str) -> Result:
    result = CliRunner().invoke(cli, ["--project", str(project), "replay", str(events), "--dry-run", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def shown(number: int, **changes: object) -> str:
    event = {"type": "impression", "impression_id": f"i{number}", "user_id": 1, "item_id": "a"}
    return json.dumps(event | {"event_time_ms": DAY_MS + number * 1_000} | changes) + "\n"


def test_a_file_that_fits_is_told_with_the_range_of_its_times(sound_project: Path) -> None:
    events = sound_project / "events.jsonl"
    events.write_text(shown(0) + shown(60))
    result = dry_run(sound_project, events)
    assert result.output.splitlines() == [
        "would send 2 impressions and 0 feedback events",
        "times from 2026-01-01 12:00:00+00:00 to 2026-01-01 12:01:00+00:00",
    ]
    assert result.exit_code == 0
    found = json.loads(dry_run(sound_project, events, "--json").stdout)
    assert (found["first_ms"], found["last_ms"], found["dead_letters"]) == (DAY_MS, DAY_MS + 60_000, {})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (shown(1, item_id=7), "1 events would become dead letters: 1 invalid; the first is line 2: item_id: "),
        (shown(1, user_id=1.0), "the first is line 2: user_id: Input should be a valid integer"),
        (shown(1, context={"hour": 3}), "the first is line 2: context.hour"),
    ],
)
def test_what_would_become_a_dead_letter_fails_the_dry_run(sound_project: Path, line: str, fault: str) -> None:
    events = sound_project / "events.jsonl"
    events.write_text(shown(0) + line)
    result = dry_run(sound_project, events)
    assert fault in result.output
    assert result.exit_code == 1


def test_a_csv_file_is_refused_with_what_to_do(sound_project: Path) -> None:
    (sound_project / "events.csv").write_text("user,item\n1,2\n")
    result = dry_run(sound_project, sound_project / "events.csv")
    assert "'graft init' writes events from CSV" in result.output
    assert result.exit_code == 1


def test_a_repository_with_faults_is_named(sound_project: Path) -> None:
    (sound_project / "feature_repo" / "definitions.py").write_text("")
    events = sound_project / "events.jsonl"
    events.write_text(shown(0))
    result = dry_run(sound_project, events)
    assert "error: graft.toml: features.service: no feature service 'ranking'" in result.output
    assert result.exit_code == 2
