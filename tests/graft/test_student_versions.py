"""`graft student ls` and the commands that move names: what they print, and what they do to a registry."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from graft.cli import cli
from stream.tasks import TaskSpec
from student.versions.gate import Comparison, GateConfig, GateRecord
from student.versions.manifest import ArmMetrics, Draft, StudentConfig
from student.versions.registry import Registry
from tests.specs import spec_of


def draft(examples: int) -> Draft:
    return Draft(
        examples=examples,
        offsets={"0": examples},
        spec=spec_of(),
        tasks=[TaskSpec(name="like", kind="binary", window_seconds=60)],
        student=StudentConfig(),
        teacher_version="t1",
        metrics={"like": {"student": ArmMetrics(count=examples, auc=0.5 + examples / 1_000)}},
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "versions")
    for n in range(1, 4):
        publish(registry, 10 * n)
    return registry


def publish(registry: Registry, examples: int) -> None:
    registry.publish(draft(examples), {"bias": np.zeros(1, np.float32)}, {}, {})


def run(registry: Registry, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["student", *arguments], env={"GRAFT_VERSIONS": str(registry.folder)})


def told(registry: Registry, *arguments: str) -> Any:
    done = run(registry, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_manifest_that_cannot_be_read_is_said_in_its_row_and_the_others_are_listed(registry: Registry) -> None:
    (registry.folder / "v000002" / "manifest.json").write_text("{")
    done = run(registry, "ls")
    assert done.exit_code == 0
    first, second, third = done.output.splitlines()
    assert first.startswith("v000001  20")
    assert second.startswith("v000002  cannot be read: version v000002: manifest.json is not JSON: ")
    assert f"remove the folder {registry.folder / 'v000002'} and restart the learner" in second
    assert third.endswith("champion, candidate, control")
    rows = told(registry, "ls")
    assert [row["version"] for row in rows] == ["v000001", "v000002", "v000003"]
    assert ["fault" in row for row in rows] == [False, True, False]
    assert [row["champion"] for row in rows] == [False, False, True]


def test_a_champion_that_is_gone_has_a_row_that_says_what_to_do(registry: Registry) -> None:
    shutil.rmtree(registry.folder / "v000003")
    *_, last = told(registry, "ls")
    assert last == {
        "version": "v000003",
        "champion": True,
        "names": ["champion", "control"],
        "fault": f"version v000003 is not in {registry.folder}; there are v000001 to v000002; "
        "restart the learner ('graft student train'): it promotes the newest whole version",
    }


def test_a_damaged_champion_file_is_one_line_that_says_what_to_do(registry: Registry) -> None:
    (registry.folder / "champion").write_text("newest\n")
    done = run(registry, "ls")
    assert done.exit_code == 1
    assert done.output == (
        f"error: {registry.folder / 'champion'} must hold a version such as v000001, found 'newest'; 'graft student "
        "promote VERSION' writes the champion anew, or restart the learner ('graft student train'): it promotes the "
        "newest whole one\n"
    )
    assert run(registry, "promote", "v000001").exit_code == 0
    assert registry.champion() == "v000001"


def test_a_promotion_holds_and_a_release_ends_it(registry: Registry) -> None:
    move = told(registry, "promote", "1", "--why", "the others are wrong")
    assert (move["was"], move["to"], move["held"], move["why"]) == ("v000003", "v000001", True, "the others are wrong")
    assert "@" in move["by"]
    publish(registry, 40)
    assert registry.champion() == "v000001"
    assert "the champion is held by" in run(registry, "ls").output.splitlines()[-1]
    released = run(registry, "hold", "--end").output
    assert "champion: v000001 stays, by " in released
    publish(registry, 50)
    assert registry.champion() == "v000005"


def test_a_rollback_names_the_champion_before_and_says_so_in_one_line(registry: Registry) -> None:
    done = run(registry, "rollback", "--why", "inverted labels")
    assert done.exit_code == 0
    assert "champion: v000003 -> v000002, by " in done.output
    assert done.output.endswith(": inverted labels; the champion is held\n")


def test_a_hold_keeps_what_serves(registry: Registry) -> None:
    assert told(registry, "hold", "--why", "sale")["to"] == "v000003"
    publish(registry, 40)
    assert registry.champion() == "v000003"


def test_a_name_is_given_and_taken_away(registry: Registry) -> None:
    assert told(registry, "name", "mine", "v000001")["to"] == "v000001"
    assert told(registry, "show", "mine")["version"] == "v000001"
    assert told(registry, "name", "mine", "--remove")["to"] is None
    missing = run(registry, "show", "mine")
    assert (missing.exit_code, "no version has the name 'mine'; names: champion" in missing.output) == (1, True)


@pytest.mark.parametrize(
    "arguments", [("mine",), ("mine", "v000001", "--remove"), ("champion", "v000001"), ("control", "v000001")]
)
def test_a_name_that_is_not_given_right_moves_nothing(registry: Registry, arguments: tuple[str, ...]) -> None:
    assert run(registry, "name", *arguments).exit_code != 0
    assert len(registry.names.history()) == 3


def test_a_version_is_shown_with_its_names_metrics_and_the_last_moves(registry: Registry) -> None:
    shown = told(registry, "show")
    assert (shown["version"], shown["names"]) == ("v000003", ["champion", "candidate", "control"])
    assert shown["metrics"]["whole"]["like"]["student"]["auc"] == 0.53
    assert [move["to"] for move in shown["moves"]] == ["v000001", "v000002", "v000003"]
    lines = run(registry, "show", "1").output.splitlines()
    assert lines[0] == "v000001  no name"
    assert "  whole like student: count 10, auc 0.51" in lines
    assert lines[-1].endswith("champion: v000002 -> v000003, by learner: the newest version, examples 30")


def test_a_verdict_is_shown_with_what_decided_it(registry: Registry) -> None:
    assert told(registry, "show")["gate"] is None
    comparison = Comparison(
        metric="loss",
        task="like",
        slice="whole",
        examples=400,
        mean=0.08,
        interval=(0.02, 0.14),
        bound=0.01,
        evidence=9.5,
        verdict="roll_back",
    )
    record = GateRecord(
        verdict="roll_back",
        stopped=True,
        candidate="v000003",
        champion="v000001",
        proven="v000001",
        enough_evidence=7.3,
        settings=GateConfig(),
        comparisons=[comparison],
    )
    judged = draft(40).model_copy(update={"gate": record})
    registry.publish(judged, {"bias": np.zeros(1, np.float32)}, {}, {}, promote=False)
    assert registry.champion() == "v000003"
    lines = run(registry, "show", "candidate").output.splitlines()
    at = lines.index("the gate's verdict before it was published: roll_back, and the gate holds the champion")
    assert lines[at + 1] == (
        "  like loss, slice whole, candidate v000003, champion v000001, interval 0.0200 to 0.1400, bound 0.0100, "
        "examples 400"
    )
    assert GateRecord.model_validate(told(registry, "show", "candidate")["gate"]) == record


def test_two_versions_are_compared(registry: Registry) -> None:
    rows = {row["what"]: (row["old"], row["new"]) for row in told(registry, "show", "champion", "--against", "1")}
    assert rows["examples"] == (10, 30)
    assert rows["whole like auc"] == (0.51, 0.53)
    assert not any(what.startswith("student.") for what in rows)
    assert run(registry, "show", "1", "--against", "v000001").output == "the two are the same version\n"
