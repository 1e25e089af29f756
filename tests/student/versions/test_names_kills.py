"""Moves of names by a person, killed at any moment: what serves is whole, and held as soon as it has moved."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from student.versions.names import CHAMPION
from student.versions.registry import Registry
from tests.student.versions.test_names import TOLD, point, registry_with
from tests.student.versions.test_registry import publish

COMMANDS: dict[str, Callable[[Registry], object]] = {
    "promote": lambda registry: point(registry, CHAMPION, "v000001", hold=True),
    "rollback": lambda registry: registry.roll_back(**TOLD),
    "hold": lambda registry: registry.names.hold(**TOLD, hold=True),
    "release": lambda registry: registry.names.hold(**TOLD, hold=False),
}


class Killed(BaseException):
    """Nothing catches it, so that files stay as they are, as when the process is killed."""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_with(tmp_path / "versions", 4)


def killed_at(registry: Registry, command: str, sync: int) -> bool:
    """Whether the command was killed, when it put something on disk for the time number `sync`."""
    left = sync

    def counted(_handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        try:
            COMMANDS[command](registry)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("was_held", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_move_that_is_killed_is_done_or_not_and_never_without_its_hold(
    tmp_path: Path, *, command: str, was_held: bool
) -> None:
    for sync in range(1, 20):
        registry = Registry(tmp_path / str(sync))
        for _ in range(4):
            publish(registry)
        if was_held:
            point(registry, CHAMPION, "v000004", hold=True)
        if not killed_at(registry, command, sync):
            break
        champion = registry.champion()
        assert champion in ("v000004", {"promote": "v000001", "rollback": "v000003"}.get(command))
        held = registry.names.held()
        assert held is not None or champion == "v000004"
        publish(registry)
        assert registry.champion() == (champion if held else "v000005")
        COMMANDS["promote"](registry)
        assert registry.champion() == "v000001"
        assert [move.to for move in registry.names.history()][-1] == "v000001"
        assert not list(registry.folder.rglob("*.partial"))
    else:
        pytest.fail("the command was never done")
    assert sync > 2


def test_a_rollback_that_a_kill_kept_out_of_the_history_is_told_there_and_is_not_undone_by_the_next(
    registry: Registry,
) -> None:
    for sync in range(1, 20):
        if registry.champion() == "v000003":
            break
        assert killed_at(registry, "rollback", sync)
    assert registry.names.history()[-1].to == "v000004"
    COMMANDS["hold"](registry)
    *_, cut_short, _ = registry.names.history()
    assert (cut_short.was, cut_short.to, cut_short.by, cut_short.back) == ("v000004", "v000003", "ann", True)
    assert registry.roll_back(**TOLD).to == "v000002"
