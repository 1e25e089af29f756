"""Names that several people and a learner move at the same time, and a champion that is damaged while it is held."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from student.versions.names import CHAMPION, Reference
from student.versions.registry import Registry
from student.versions.remote import index_of
from student.versions.version_folder import VersionError
from tests.student.versions.test_names import TOLD, point, registry_with
from tests.student.versions.test_registry import publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_with(tmp_path / "versions", 4)


def meanwhile(registry: Registry, monkeypatch: pytest.MonkeyPatch, act: Callable[[Registry], object]) -> None:
    """Somebody else acts once, just after `registry` has read the next version that it is to name."""
    read = registry.check_serves

    def reading(reference: Reference) -> None:
        read(reference)
        monkeypatch.setattr(registry, "check_serves", read)
        act(Registry(registry.folder))

    monkeypatch.setattr(registry, "check_serves", reading)


def test_a_version_that_is_pruned_while_it_gets_a_name_is_not_named(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(registry, monkeypatch, lambda other: other.prune(keep=1))
    with pytest.raises(VersionError, match="version v000001 has been pruned meanwhile"):
        point(registry, CHAMPION, "v000001", hold=True)
    assert (registry.champion(), registry.names.held()) == ("v000004", None)


def test_a_prune_sees_the_names_that_are_given_until_it_removes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared, faults = registry._spared, []

    def name_the_oldest() -> None:
        try:
            point(Registry(registry.folder), "mine", "v000001")
        except VersionError as error:
            faults.append(str(error))

    namer = threading.Thread(target=name_the_oldest)

    def sparing() -> set[str | None]:
        found = spared()
        namer.start()
        namer.join(0.5)  # it waits for the prune, or it would be done by then
        return found

    monkeypatch.setattr(registry, "_spared", sparing)
    registry.prune(keep=1)
    namer.join()
    named = registry.names.of("mine")
    assert named is None or named in registry.versions()
    assert len(faults) == (named is None)


def test_a_rollback_goes_back_from_what_serves_when_it_is_done(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(registry, monkeypatch, lambda other: point(other, CHAMPION, "v000002", hold=True))
    move = registry.roll_back(**TOLD)
    assert (move.was, move.to) == ("v000002", "v000004")


def test_a_rollback_to_a_version_that_was_pruned_says_what_else_there_is(registry: Registry) -> None:
    registry.roll_back(**TOLD)
    registry.names.hold(**TOLD, hold=False)
    publish(registry)
    registry.prune(keep=1)
    assert registry.roll_back(**TOLD).to == "v000003"
    with pytest.raises(
        VersionError, match=r"v000002, the champion before v000003, has been pruned; 'graft student pro"
    ):
        registry.roll_back(**TOLD)
    assert registry.champion() == "v000003"


@pytest.mark.parametrize("hold", [True, False])
def test_what_is_held_or_released_is_the_champion_of_that_moment_even_a_damaged_one(
    registry: Registry, *, hold: bool
) -> None:
    point(registry, CHAMPION, "v000001", hold=True)
    (registry.folder / "v000001" / "model.safetensors").write_bytes(b"half")
    move = registry.names.hold(**TOLD, hold=hold)
    assert (move.was, move.to, move.held) == ("v000001", "v000001", hold)
    publish(registry)
    assert registry.champion() == ("v000001" if hold else "v000005")


@pytest.mark.parametrize("content", [b"", b"v12\n", None])
def test_a_damaged_champion_does_not_end_a_hold(registry: Registry, content: bytes | None) -> None:
    point(registry, CHAMPION, "v000002-control", hold=True)
    champion = registry.folder / CHAMPION
    champion.unlink()
    if content is not None:
        champion.write_bytes(content)
    assert registry.mend_champion() == "v000002-control"
    publish(registry)
    held = registry.names.held()
    assert held is not None
    assert (registry.champion(), held.to) == ("v000002-control", "v000002-control")


def test_a_hold_on_a_version_that_is_gone_ends_with_the_newest_one_as_champion(registry: Registry) -> None:
    point(registry, CHAMPION, "v000002", hold=True)
    (registry.folder / "v000002").rename(registry.folder.parent / "away")
    assert registry.mend_champion() == "v000004"
    assert registry.names.held() is None


def test_a_history_that_cannot_be_read_is_one_line(registry: Registry) -> None:
    history = registry.folder / "names" / "history.jsonl"
    history.unlink()
    history.mkdir()
    with pytest.raises(VersionError, match=r"history.jsonl: cannot be read: Is a directory"):
        registry.names.history()


def test_who_waits_for_names_that_are_cleared_is_still_alone(registry: Registry) -> None:
    lock = registry.folder / "names" / ".lock"
    before = lock.stat().st_ino
    registry.names.clear()
    assert lock.stat().st_ino == before
    assert registry.names.all() == {"candidate": "v000004"}


def test_files_that_somebody_left_in_the_folders_are_no_names_and_no_versions(registry: Registry) -> None:
    names = registry.folder / "names"
    (names / "notes").write_bytes(b"\xff\xfe")
    (names / "old").mkdir()
    (names / "a b").write_text("v000001\n")
    for name in ("v" + "9" * 19, "v" + "\u0661" * 6, "v000001.bak"):
        (registry.folder / name).mkdir()
    point(registry, "mine", "v000001")
    assert registry.names.given() == ["mine"]
    assert publish(registry) == "v000005"
    registry.learner_id()
    index = index_of(registry, None)
    assert index is not None
    assert index.lines.keys() == {"last_version", "learner_id", "champion", "names/mine"}
    registry.prune(keep=1)
    assert registry.versions() == ["v000001", "v000004", "v000005"]


@pytest.mark.parametrize("path", ["champion", "names/held"])
def test_a_small_file_that_cannot_be_read_is_no_fault_of_the_store(registry: Registry, path: str) -> None:
    (registry.folder / path).unlink(missing_ok=True)
    (registry.folder / path).mkdir()
    with pytest.raises(VersionError, match=f"{path}: cannot be read: Is a directory"):
        index_of(registry, None)
