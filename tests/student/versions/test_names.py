"""Names of versions: moves that the history tells, holds that hold, kills in between, files that somebody wrote."""

import json
import threading
from pathlib import Path

import pytest

from student.versions import names as names_module
from student.versions.names import CHAMPION, Names, Reference
from student.versions.registry import Registry
from student.versions.version_folder import VersionError
from tests.student.versions.test_registry import publish

TOLD = {"by": "ann", "why": "a test"}


def registry_with(folder: Path, versions: int) -> Registry:
    """The last of its versions is the champion."""
    registry = Registry(folder)
    for _ in range(versions):
        publish(registry)
    return registry


def move(**other: object) -> bytes:
    """A line of the history."""
    fields = {"at_ms": 1, "name": CHAMPION, "to": "v000003", "was": None, "by": "ann", "why": "a test", "held": False}
    return json.dumps({**fields, **other}).encode()


def point(registry: Registry, name: str, text: str, *, hold: bool | None = None) -> None:
    registry.point(name, Reference(text), **TOLD, hold=hold)


def test_own_names_follow_what_is_published(registry: Registry) -> None:
    assert registry.names.all() == {}
    publish(registry)
    publish(registry)
    assert registry.names.all() == {"champion": "v000002", "candidate": "v000002", "control": "v000002-control"}


def test_a_champion_that_a_person_moved_stays_until_it_is_released(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    point(registry, CHAMPION, "v000001", hold=True)
    publish(registry)
    assert (registry.champion(), registry.names.of("candidate")) == ("v000001", "v000003")
    held = registry.names.held()
    assert held is not None
    assert (held.by, held.why, held.to) == ("ann", "a test", "v000001")
    point(registry, CHAMPION, "v000001", hold=False)
    assert registry.champion() == "v000001"
    publish(registry)
    assert (registry.champion(), registry.names.held()) == ("v000004", None)


def test_the_history_tells_who_moved_what_when_and_why_with_the_numbers(registry: Registry) -> None:
    publish(registry, examples=7)
    point(registry, "before-the-sale", "v000001")
    first, second = registry.names.history()
    assert (first.name, first.was, first.to, first.by, first.why) == (
        *("champion", None, "v000001", "learner"),
        "the newest version",
    )
    assert first.numbers == {"examples": 7}
    assert (second.name, second.to, second.by, second.why, second.held) == (
        *("before-the-sale", "v000001", "ann", "a test"),
        False,
    )
    assert second.at_ms >= first.at_ms > 1_700_000_000_000


def test_a_rollback_goes_back_holds_and_goes_further_back_the_next_time(registry: Registry) -> None:
    for _ in range(3):
        publish(registry)
    assert registry.roll_back(**TOLD).to == "v000002"
    publish(registry)
    assert registry.champion() == "v000002"
    assert registry.roll_back(**TOLD).to == "v000001"
    with pytest.raises(VersionError, match="there was none before v000001"):
        registry.roll_back(**TOLD)
    assert registry.champion() == "v000001"


def test_before_the_first_version_a_rollback_says_how_there_will_be_one(registry: Registry) -> None:
    with pytest.raises(VersionError, match="no champion yet; 'graft student train' publishes versions"):
        registry.roll_back(**TOLD)
    assert registry.champion() is None


def test_nothing_serves_that_cannot_be_read(registry: Registry) -> None:
    for _ in range(2):
        publish(registry)
    (registry.folder / "v000001" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(VersionError, match="v000001"):
        point(registry, CHAMPION, "v000001")
    with pytest.raises(VersionError, match="v000001"):
        registry.roll_back(**TOLD)
    with pytest.raises(VersionError, match="v000009 is not in"):
        point(registry, "mine", "v000009")
    assert (registry.champion(), registry.names.held(), registry.names.of("mine")) == ("v000002", None, None)


def test_what_a_name_stands_for_is_spared_from_pruning(registry: Registry) -> None:
    for _ in range(6):
        publish(registry)
    point(registry, "mine", "v000002-control")
    registry.prune(keep=1)
    assert registry.versions() == ["v000002", "v000005", "v000006"]  # the champion, its parent, and mine
    registry.remove_name("mine", **TOLD)
    registry.prune(keep=1)
    assert registry.versions() == ["v000005", "v000006"]
    with pytest.raises(VersionError, match="no version has the name 'mine'; names: champion"):
        registry.remove_name("mine", **TOLD)


def test_a_name_of_no_version_is_told_where_there_are_no_names(registry: Registry) -> None:
    with pytest.raises(VersionError, match="no version has the name 'mine'; names: none"):
        registry.remove_name("mine", **TOLD)


@pytest.mark.parametrize("name", ["control", "candidate", "held", "v000001", "Mine", "", "../x", "a" * 65, "a b", "ä"])
def test_names_that_nobody_may_give_are_refused(registry: Registry, name: str) -> None:
    publish(registry)
    with pytest.raises(VersionError, match="a name is a lower-case letter"):
        point(registry, name, "v000001")
    assert len(registry.names.history()) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("champion", "v000002"),
        ("control", "v000002-control"),
        ("1", "v000001"),
        ("v000001", "v000001"),
        ("v000001-control", "v000001-control"),
        ("mine", "v000001"),
    ],
)
def test_a_name_a_version_and_a_number_stand_for_a_version(registry: Registry, text: str, found: str) -> None:
    publish(registry)
    publish(registry)
    point(registry, "mine", "v000001")
    assert str(registry.names.resolve(text)) == found


@pytest.mark.parametrize("text", ["", "held", "history.jsonl", "../champion", "nobody", "v1", "-1", "¹", "v000001-x"])
def test_what_is_no_name_says_which_there_are(registry: Registry, text: str) -> None:
    publish(registry)
    point(registry, CHAMPION, "v000001", hold=True)
    with pytest.raises(VersionError, match=r"no version has the name .*; names: champion, candidate, control;"):
        registry.names.resolve(text)


def test_a_move_that_a_kill_cut_short_is_told_by_the_next_one(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    history = registry.folder / "names" / "history.jsonl"
    before = history.read_bytes()
    (registry.folder / "champion").write_text("v000001\n")  # the name is written, the history is not yet
    history.write_bytes(before + b'{"at_ms": 17')
    point(registry, CHAMPION, "v000002")
    *_, unknown, last = registry.names.history()
    assert (unknown.was, unknown.to, unknown.by) == ("v000002", "v000001", "unknown")
    assert (last.was, last.to, last.by) == ("v000001", "v000002", "ann")
    assert all(json.loads(line) for line in history.read_bytes().splitlines())


def test_a_champion_that_somebody_wrote_by_hand_can_be_held(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    (registry.folder / "champion").write_text("v000001\n")
    point(registry, CHAMPION, str(registry.champion()), hold=True)
    publish(registry)
    assert registry.champion() == "v000001"


def test_moves_of_many_at_once_are_each_in_the_history(registry: Registry) -> None:
    publish(registry)
    publish(registry)

    def move(thread: int) -> None:
        for _ in range(20):
            Registry(registry.folder).names.move(f"name{thread}", "v000001", **TOLD)

    threads = [threading.Thread(target=move, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.names.history()) == 2 + 4 * 20
    assert not list((registry.folder / "names").glob(".*partial"))


def test_a_long_history_goes_on_in_a_new_file_and_the_last_moves_are_read(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "_LONGEST_BYTES", 1_000)
    for _ in range(8):
        publish(registry)
    files = list((registry.folder / "names").glob("history*"))
    assert len(files) > 1
    told = [json.loads(line)["to"] for file in files for line in file.read_text().splitlines()]
    assert sorted(told) == [f"v{n:06d}" for n in range(1, 9)]
    assert [move.to for move in registry.names.history()][-3:] == ["v000006", "v000007", "v000008"]
    assert registry.names.before("v000008") == "v000007"


@pytest.mark.parametrize(
    "damaged", [b"{}", b"", b"\xff\0", b'{"at_ms": 1', b"[" * 5_000, move(to="v1"), move(was="x"), move(at_ms=10**30)]
)
def test_a_damaged_line_of_the_history_is_told_once_and_ends_neither_publishes_nor_rollbacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    registry = registry_with(tmp_path / "versions", 3)
    with (registry.folder / "names" / "history.jsonl").open("ab") as file:
        file.write(damaged + b"\n")
    publish(registry)
    assert registry.roll_back(**TOLD).to == "v000003"
    assert registry.roll_back(**TOLD).to == "v000002"
    assert registry.prune(1) == []
    moved = [move.to for move in registry.names.history()]
    assert moved == ["v000001", "v000002", "v000003", "v000004", "v000003", "v000002"]
    (told,) = caplog.messages
    assert told.endswith("history.jsonl, line 4: no move of a name, passed over; restore the line or remove it")


@pytest.mark.parametrize("to", ["v1", "v000001-teacher", "", "../v000001"])
def test_a_hold_on_what_is_no_version_is_damaged_and_says_where(registry: Registry, to: str) -> None:
    publish(registry)
    point(registry, CHAMPION, "v000001", hold=True)
    path = registry.folder / "names" / "held"
    path.write_text(json.dumps({**json.loads(path.read_text()), "to": to}))
    held = registry.names.held()
    assert held is not None
    assert held.why.startswith(f"{path} cannot be read; 'graft student hold' writes it anew")
    (registry.folder / CHAMPION).unlink()
    assert registry.mend_champion() == "v000001"


def test_a_damaged_hold_holds_and_says_how_to_mend_it(registry: Registry) -> None:
    publish(registry)
    (registry.folder / "names" / "held").write_text("{")
    held = registry.names.held()
    assert held is not None
    assert "'graft student hold' writes it anew" in held.why
    assert registry.names.move(CHAMPION, "v000001", **TOLD, unless_held=True) is None
    point(registry, CHAMPION, "v000001", hold=True)
    held = registry.names.held()
    assert held is not None
    assert held.by == "ann"


def test_a_champion_of_an_earlier_release_has_no_history_and_serves_on(registry: Registry) -> None:
    publish(registry)
    for path in (registry.folder / "names").iterdir():
        path.unlink()
    (registry.folder / "names").rmdir()
    assert (registry.champion(), registry.names.history()) == ("v000001", [])
    assert Names(registry.folder, registry.latest).all()["control"] == "v000001-control"
    publish(registry)
    assert [move.by for move in registry.names.history()] == ["unknown", "learner"]
