"""The registry: a version is there whole, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.spec import FeatureSpec
from runtime.errors import GraftError
from stream.tasks import TaskSpec
from student.versions.config import StudentConfig
from student.versions.manifest import FORMAT, Draft
from student.versions.registry import LEARNER_FILE, MODEL_FILE, Registry, VersionError

SPEC = FeatureSpec(
    feast_project="p",
    user_join_key="u",
    item_join_key="i",
    user_id_type="int",
    item_id_type="int",
    entity_key_serialization_version=3,
    features=(),
)


def draft(examples: int = 0) -> Draft:
    return Draft(
        examples=examples,
        offsets={"0": examples},
        spec=SPEC,
        tasks=[TaskSpec(name="like", kind="binary", window_seconds=60)],
        student=StudentConfig(),
        teacher_version="t1",
        metrics={},
    )


def publish(registry: Registry, examples: int = 0, weight: float = 1.5) -> str:
    tensors = {"head.like.bias": np.array([weight], np.float32)}
    return registry.publish(draft(examples), tensors, {"count": np.array([examples])}, {"n": examples}).version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "versions")


def test_an_empty_registry_has_no_versions(registry: Registry) -> None:
    assert registry.versions() == []
    assert registry.latest() is None
    assert registry.champion() is None


def test_what_is_published_is_loaded_and_serves(registry: Registry) -> None:
    publish(registry, 3)
    version = publish(registry, 64, 2.5)
    assert registry.champion() == registry.latest() == version == "v000002"
    manifest, model = registry.load_model(version)
    assert (manifest.examples, manifest.offsets, manifest.parent) == (64, {"0": 64}, "v000001")
    assert model["head.like.bias"].tolist() == [2.5]
    _, tensors, state = registry.load_learner(version)
    assert tensors["count"].tolist() == [64]
    assert state == {"n": 64}


def test_a_non_finite_version_is_refused_and_the_last_good_one_stays(registry: Registry) -> None:
    good = publish(registry)
    with pytest.raises(VersionError, match=r"v000002: model.safetensors: head.like.bias must be finite, found 1 of 1"):
        publish(registry, 1, float("nan"))
    assert registry.champion() == registry.latest() == good


@pytest.mark.parametrize("name", [MODEL_FILE, LEARNER_FILE])
def test_a_changed_byte_is_found_at_load(registry: Registry, name: str) -> None:
    version = publish(registry)
    path = registry.folder / version / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    load = registry.load_model if name == MODEL_FILE else registry.load_learner
    with pytest.raises(VersionError, match=rf"{version}: {name}: sha256 must be [0-9a-f]{{64}}, found [0-9a-f]{{64}}"):
        load(version)


def test_an_absent_version_and_another_format_are_named(registry: Registry) -> None:
    version = publish(registry)
    with pytest.raises(VersionError, match=r"v000009 is not in .*; there are v000001 to v000001"):
        registry.load_model("v000009")
    path = registry.folder / version / "manifest.json"
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(VersionError, match=f"format must be {FORMAT}, found 99"):
        registry.load_model(version)


def test_a_missing_file_is_named(registry: Registry) -> None:
    version = publish(registry)
    (registry.folder / version / MODEL_FILE).unlink()
    with pytest.raises(VersionError, match=rf"{version}: {MODEL_FILE} is missing"):
        registry.load_model(version)


def test_prune_spares_the_newest_the_champion_and_its_parent(registry: Registry) -> None:
    for examples in range(6):
        publish(registry, examples)
    registry.promote("v000003")
    assert registry.prune(keep=2) == ["v000001", "v000004"]
    assert registry.versions() == ["v000002", "v000003", "v000005", "v000006"]


def test_a_claim_removes_what_a_killed_publish_left(registry: Registry) -> None:
    version = publish(registry)
    leftover = registry.folder / ".v000002"
    leftover.mkdir()
    (leftover / MODEL_FILE).write_bytes(b"half")
    assert registry.versions() == [version]
    with registry.claim():
        assert not leftover.exists()
        assert publish(registry) == "v000002"


def test_two_learners_cannot_publish_into_one_folder(registry: Registry) -> None:
    with (
        registry.claim(),
        pytest.raises(GraftError, match="another learner publishes here"),
        Registry(registry.folder).claim(),
    ):
        pass


_KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
import student.versions.registry as versions
number, at = int(sys.argv[2]), 0
def die_at_the_nth_sync(handle):
    global at
    at += 1
    if at == number:
        os.kill(os.getpid(), 9)
versions.os.fsync = die_at_the_nth_sync
import importlib.util
spec = importlib.util.spec_from_file_location("published", sys.argv[3])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.publish(versions.Registry(Path(sys.argv[1])), 7)
"""


@pytest.mark.parametrize("sync", [1, 3, 4, 5, 6, 7])
def test_a_publish_killed_at_any_sync_leaves_a_whole_champion(registry: Registry, sync: int) -> None:
    first = publish(registry)
    arguments = [sys.executable, "-c", _KILLED, str(registry.folder), str(sync), __file__]
    child = subprocess.run(arguments, env=dict(os.environ), timeout=60, check=False)
    assert child.returncode == -9
    champion = registry.champion()
    assert champion in (first, "v000002")
    for version in registry.versions():
        registry.load_model(version)
        registry.load_learner(version)
    with registry.claim():
        publish(registry, 8)
    assert registry.champion() == registry.latest()
