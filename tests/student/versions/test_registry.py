"""The registry: a version is there whole, or not at all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import GraftError
from stream.tasks import TaskSpec
from student.versions import version_folder
from student.versions.manifest import FORMAT, Draft, StudentConfig
from student.versions.registry import Registry
from student.versions.version_folder import (
    LEARNER_FILE,
    MODEL_FILE,
    MOST_MANIFEST_BYTES,
    SERVED_METRICS_FILE,
    VersionError,
)
from tests.disks import Disk
from tests.specs import spec_of
from tests.student.posteriors import draft_of
from tests.student.versions.promoted import promote

SPEC = spec_of()


def draft(examples: int = 0) -> Draft:
    like = TaskSpec(name="like", kind="binary", window_seconds=60)
    return draft_of(SPEC, [like], StudentConfig(), examples=examples, offsets={"0": examples}, teacher_version="t1")


def publish(registry: Registry, examples: int = 0, weight: float = 1.5) -> str:
    tensors = {"head.like.bias": np.array([weight], np.float32)}
    return registry.publish(draft(examples), tensors, {"count": np.array([examples])}, {"n": examples}).version


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


def test_a_mapped_model_is_the_one_that_is_loaded_and_outlives_its_folder(registry: Registry) -> None:
    random = np.random.default_rng(1)
    model = {
        "users.key": np.sort(random.integers(0, 2**63, 7).astype(np.uint64)),
        "odd": random.normal(size=(3, 5)).astype(np.float32),
        "none": np.zeros((0, 4), np.float32),
        "b": random.normal(size=1).astype(np.float32),
    }
    version = registry.publish(draft(), model, {}, {}).version
    _, loaded = registry.load_model(version)
    manifest, mapped = registry.map_model(version)
    shutil.rmtree(registry.folder / version)
    assert manifest.version == version
    assert mapped.keys() == loaded.keys()
    for name, tensor in loaded.items():
        assert (mapped[name].dtype, mapped[name].shape) == (tensor.dtype, tensor.shape)
        assert mapped[name].tobytes() == tensor.tobytes()
        assert not mapped[name].flags.writeable


def _headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"\0" * 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1",
        b"12345678",
        b"\xff" * 16,
        _headed(b"{]"),
        _headed(b"[]"),
        _headed(b"[" * 100_000),
        _headed(b'{"a": 1}'),
        _headed(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}'),
        _headed(b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}'),
        _headed(b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}}'),
        _headed(b'{"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}'),
        None,
    ],
)
def test_a_model_that_cannot_be_mapped_is_named(registry: Registry, content: bytes | None) -> None:
    version = publish(registry)
    path = registry.folder / version / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-2] if content is None else content)
    with pytest.raises(VersionError, match=f"{version}: {MODEL_FILE} is not safetensors: "):
        registry.map_model(version)


def test_the_sums_of_served_metrics_come_back_and_a_version_may_have_none(registry: Registry) -> None:
    assert registry.load_served_metrics(publish(registry)) == {}
    sums = {"sum": np.array([1.5, np.nan]), "reached": np.array([7])}
    version = registry.publish(draft(), {}, {}, {}, sums).version
    found = registry.load_served_metrics(version)
    assert {name: tensor.tobytes() for name, tensor in found.items()} == {n: t.tobytes() for n, t in sums.items()}


@pytest.mark.parametrize("name", [MODEL_FILE, LEARNER_FILE, SERVED_METRICS_FILE])
def test_a_changed_byte_is_found_at_load(registry: Registry, name: str) -> None:
    version = registry.publish(draft(), {"a": np.ones(1, np.float32)}, {"b": np.ones(1)}, {}, {"c": np.ones(1)}).version
    path = registry.folder / version / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    load = {
        MODEL_FILE: registry.load_model,
        LEARNER_FILE: registry.load_learner,
        SERVED_METRICS_FILE: registry.load_served_metrics,
    }[name]
    with pytest.raises(VersionError, match=rf"{version}: {name}: sha256 must be [0-9a-f]{{64}}, found [0-9a-f]{{64}}"):
        load(version)


def test_a_manifest_with_the_former_name_of_the_bootstraps_size_is_read(registry: Registry) -> None:
    version = publish(registry)
    path = registry.folder / version / "manifest.json"
    path.write_text(path.read_text().replace('"bootstrapped_rows": 0', '"bootstrapped_pairs": 200'))
    assert registry.load_manifest(version).bootstrapped_rows == 200


def test_prune_spares_the_newest_what_is_in_use_the_champion_and_its_parent(registry: Registry) -> None:
    for examples in range(6):
        publish(registry, examples)
    promote(registry, "v000003")
    assert registry.prune(keep=2) == ["v000001", "v000004"]
    assert registry.versions() == ["v000002", "v000003", "v000005", "v000006"]
    assert registry.prune(keep=1, used=["v000005", "v000006"]) == []
    (registry.folder / "v000003" / "manifest.json").write_text("{")  # its parent is not known any more
    assert registry.prune(keep=1) == ["v000002", "v000005"]


def test_a_claim_removes_what_a_killed_publish_left(registry: Registry) -> None:
    version = publish(registry)
    leftover = registry.folder / ".v000002"
    leftover.mkdir()
    (leftover / MODEL_FILE).write_bytes(b"half")
    assert registry.versions() == [version]
    with registry.claim():
        assert not leftover.exists()
        assert publish(registry) == "v000002"


def test_a_number_is_never_used_twice(registry: Registry) -> None:
    assert [publish(registry), publish(registry)] == ["v000001", "v000002"]
    shutil.rmtree(registry.folder / "v000002")
    assert publish(registry) == "v000003"
    promote(registry, "v000001")
    shutil.rmtree(registry.folder / "v000003")
    assert publish(registry) == "v000004"
    assert registry.load_manifest("v000004").parent == "v000001"


def test_in_a_registry_of_an_earlier_release_the_number_of_the_champion_is_not_used_again(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    (registry.folder / "last_version").unlink()
    shutil.rmtree(registry.folder / "v000002")
    assert publish(registry) == "v000003"


def test_the_newest_whole_version_takes_the_place_of_a_champion_that_is_gone(registry: Registry) -> None:
    for examples in range(4):
        publish(registry, examples)
    assert registry.mend_champion() is None
    shutil.rmtree(registry.folder / "v000004")
    (registry.folder / "v000003" / MODEL_FILE).write_bytes(b"damaged")
    assert registry.mend_champion() == "v000002"
    assert registry.champion() == "v000002"


def test_a_full_disk_refuses_a_version_whole_and_the_registry_goes_on_when_there_is_room(disk: Disk) -> None:
    registry = Registry(disk.folder / "versions")
    publish(registry)
    disk.fill(spare_bytes=16_384)
    big = {"head.like.bias": np.zeros(100_000, np.float32)}
    with pytest.raises(GraftError, match=r"cannot be written: No space left on device; make room on its disk"):
        registry.publish(draft(1), big, {}, {})
    assert (registry.versions(), registry.champion()) == (["v000001"], "v000001")
    assert sorted(path.name for path in registry.folder.iterdir()) == ["champion", "last_version", "names", "v000001"]
    disk.make_room()
    assert registry.publish(draft(1), big, {}, {}).version == "v000003"


@pytest.mark.parametrize("was_held", [True, False])
def test_on_a_full_disk_a_rollback_is_done_and_says_so_or_neither_moves_nor_holds(
    disk: Disk, *, was_held: bool
) -> None:
    moved = []
    for free_blocks in range(6):
        registry = Registry(disk.folder / f"versions-{free_blocks}")
        for _ in range(2):
            publish(registry)
        if was_held:
            registry.names.hold(by="ann", why="a sale", hold=True)
        before = registry.names.held()
        history = registry.folder / "names" / "history.jsonl"
        text = history.read_bytes().rstrip()
        history.write_bytes(text.ljust(4_096 * (len(text) // 4_096 + 1) - 1) + b"\n")  # one more line, one more block
        disk.fill(spare_bytes=4_096 * free_blocks)
        error = None
        try:
            registry.roll_back(by="bob", why="a test")
        except GraftError as refused:
            error = str(refused)
            assert error.endswith("cannot be written: No space left on device; make room on its disk, then start again")
        disk.make_room()
        held = registry.names.held()
        moved.append(registry.champion() == "v000001")
        if moved[-1]:
            assert held is not None
            assert held.by == "bob"
            assert error is None or error.startswith("champion stands for v000001 now, held; the history does not tell")
        else:
            assert error is not None
            assert (registry.champion(), held) == ("v000002", before)
        registry.names.hold(by="ann", why="a test", hold=True)
        told = [move for move in registry.names.history() if move.to != move.was]
        assert told[-1].to == registry.champion()
    assert (moved[0], moved[-1]) == (False, True)


def test_a_read_only_disk_is_one_line_of_claim_publish_and_prune(disk: Disk) -> None:
    registry = Registry(disk.folder / "versions")
    for examples in range(3):
        publish(registry, examples)
    disk.refuse_writes()
    told = rf"^{registry.folder}: cannot be written: Read-only file system; mount it for writing"
    for attempt in (lambda: registry.claim().__enter__(), lambda: publish(registry), lambda: registry.prune(1)):
        with pytest.raises(GraftError, match=told):
            attempt()
    assert registry.load_model("v000003")[0].examples == 2


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
os.fsync = die_at_the_nth_sync
import importlib.util
spec = importlib.util.spec_from_file_location("published", sys.argv[3])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.publish(versions.Registry(Path(sys.argv[1])), 7)
"""


@pytest.mark.parametrize("sync", range(1, 11))
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
    begun = 1 if sync == 1 else 2  # between the first and the second sync the number is noted
    with registry.claim():
        assert publish(registry, 8) == f"v{begun + 1:06d}"
    assert registry.champion() == registry.latest()
    assert not [path.name for path in registry.folder.rglob(".*") if path.name != ".lock"]


def rewritten(registry: Registry, change: Callable[[dict[str, Any]], None]) -> str:
    """A version whose manifest says something else."""
    version = publish(registry)
    path = registry.folder / version / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    return version


def saying(**changes: Any) -> Callable[[Path], object]:
    """Lets a manifest say something else."""
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def copied(path: Path) -> None:
    shutil.copytree(path.parent.with_name("v000002"), path.parent, dirs_exist_ok=True)


def a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: shutil.rmtree(path.parent), "is not in .*; there are v000002 to v000002"),
        (a_file, ".*/v000001/manifest.json: cannot be read: Not a directory$"),
        (copied, ": manifest.json: version must be v000001, found v000002; remove"),
        (lambda path: (path.parent / MODEL_FILE).unlink(), f": {MODEL_FILE} is missing"),
        (lambda path: path.write_bytes(b"[" * 200_000), ": manifest.json is not JSON"),
        (lambda path: path.write_bytes(b'{"format":' * 100_000), ": manifest.json is not JSON"),
        (lambda path: os.truncate(path, MOST_MANIFEST_BYTES + 1), ".* at most 4,194,304 bytes, found 4,194,305"),
        (saying(format=99), f".*format must be {FORMAT}, found 99"),
        *(
            (saying(created_at_ms=at_ms), ".*created_at_ms: Input should be")
            for at_ms in (-1, 253_402_300_800_000, 10**30)
        ),
    ],
)
def test_what_is_wrong_with_a_version_is_named(registry: Registry, damage: Callable[[Path], object], told: str) -> None:
    version, _ = publish(registry), publish(registry)
    damage(registry.folder / version / "manifest.json")
    with pytest.raises(VersionError, match=f"version {version}.*{told}"):
        registry.load_model(version)


@pytest.mark.parametrize(
    "shape", [{"table_rows": 10**15}, {"trunk": [10**9, 10**9]}, {"embedding_dim": 10**18}, {"tower": 10**300}]
)
def test_shapes_that_do_not_fit_the_memory_are_refused_before_the_model_is_read(
    registry: Registry, shape: dict[str, Any]
) -> None:
    version = rewritten(registry, lambda fields: fields["student"].update(shape))
    (registry.folder / version / MODEL_FILE).write_bytes(b"not read")
    for load in (registry.load_model, registry.map_model):
        with pytest.raises(VersionError, match=rf"{version}: its model must fit into [\d,]+ MiB of memory, and needs"):
            load(version)


def test_a_model_file_above_the_memory_is_refused_before_it_is_read(registry: Registry) -> None:
    version = publish(registry)
    os.truncate(registry.folder / version / MODEL_FILE, 1 << 43)  # sparse: it takes no room
    with pytest.raises(VersionError, match=rf"{version}: its model must fit into [\d,]+ MiB .* needs 8,388,608 MiB"):
        registry.load_model(version)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"[:9], b"\x08\0\0\0\0\0\0\0not JSON"])
def test_a_model_whose_digest_holds_and_that_is_no_safetensors_is_damaged(registry: Registry, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    version = rewritten(registry, lambda fields: fields["sha256"].update({MODEL_FILE: digest}))
    (registry.folder / version / MODEL_FILE).write_bytes(content)
    with pytest.raises(VersionError, match=rf"{version}: {MODEL_FILE} is not safetensors"):
        registry.load_model(version)


def test_a_registry_names_its_learner_once_and_anew_when_it_is_cleared(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "versions")
    with registry.claim():
        first = registry.learner_id()
        assert registry.learner_id() == Registry(registry.folder).learner_id() == first
        registry.clear()
        second = registry.learner_id()
    with (other := Registry(tmp_path / "other")).claim():
        assert len({first, second, other.learner_id()}) == 3


def test_a_containers_limit_counts_where_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none, limit = tmp_path / "none", tmp_path / "limit"
    none.write_text("max\n")
    monkeypatch.setattr(version_folder, "_CGROUP_LIMITS", (tmp_path / "absent", none))
    machine = version_folder._memory_bytes()
    assert machine > 1 << 28
    monkeypatch.setattr(version_folder, "_CGROUP_LIMITS", (none, limit))
    limit.write_text(f"{1 << 27}\n")
    assert version_folder._memory_bytes() == 1 << 27
    limit.write_text(f"{1 << 62}\n")
    assert version_folder._memory_bytes() == machine
