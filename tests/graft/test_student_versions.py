"""`graft student versions` lists what it can read, and says of the rest why it cannot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from graft.cli import cli
from stream.tasks import TaskSpec
from student.versions.config import StudentConfig
from student.versions.manifest import Draft
from student.versions.registry import Registry
from tests.specs import spec_of

DRAFT = Draft(
    examples=40,
    offsets={"0": 40},
    spec=spec_of(),
    tasks=[TaskSpec(name="like", kind="binary", window_seconds=60)],
    student=StudentConfig(),
    teacher_version="t1",
    metrics={},
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "versions")
    for _ in range(3):
        registry.publish(DRAFT, {"bias": np.zeros(1, np.float32)}, {}, {})
    return registry


def _versions(registry: Registry, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["student", "versions", *arguments], env={"GRAFT_VERSIONS": str(registry.folder)})


def test_a_manifest_that_cannot_be_read_is_said_in_its_row_and_the_others_are_listed(registry: Registry) -> None:
    (registry.folder / "v000002" / "manifest.json").write_text("{")
    done = _versions(registry)
    assert done.exit_code == 0
    first, second, third = done.output.splitlines()
    assert first.startswith("v000001  20")
    assert second.startswith("v000002  cannot be read: version v000002: manifest.json is not JSON: ")
    assert f"remove the folder {registry.folder / 'v000002'} and restart the learner" in second
    assert third.endswith("champion")
    rows = json.loads(_versions(registry, "--json").output)
    assert [row["version"] for row in rows] == ["v000001", "v000002", "v000003"]
    assert ["fault" in row for row in rows] == [False, True, False]
    assert [row["champion"] for row in rows] == [False, False, True]


def test_a_champion_that_is_gone_has_a_row_that_says_what_to_do(registry: Registry) -> None:
    shutil.rmtree(registry.folder / "v000003")
    *_, last = json.loads(_versions(registry, "--json").output)
    assert last == {
        "version": "v000003",
        "champion": True,
        "fault": f"version v000003 is not in {registry.folder}; there are v000001 to v000002; "
        "restart the learner ('graft student train'): it promotes the newest whole version",
    }


def test_a_damaged_champion_file_is_one_line_that_says_what_to_do(registry: Registry) -> None:
    (registry.folder / "champion").write_text("newest\n")
    done = _versions(registry)
    assert done.exit_code == 1
    assert done.output == (
        f"error: {registry.folder / 'champion'} must hold a version such as v000001, found 'newest'; "
        "restart the learner ('graft student train'): it promotes the newest whole version\n"
    )
