"""What is said of a damaged registry works when it is followed literally: the learner goes on and the scorer serves."""

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import GraftError
from student.serve.swap import ChampionSwap
from student.versions.manifest import FORMAT
from student.versions.registry import Registry
from student.versions.version_folder import LEARNER_FILE, MANIFEST_FILE, MODEL_FILE, VersionError
from tests.student.learn.learning_in_memory import NO_REDIS, learn_in_memory


def learn(toy: Any, registry: Registry, count: int) -> None:
    learn_in_memory(toy, registry, [toy.example(n) for n in range(count)], keep=10)


def served(registry: Registry, caplog: pytest.LogCaptureFixture) -> tuple[str | None, str]:
    """The version that a scorer serves which starts now, and why it refuses the champion."""
    caplog.clear()

    async def start() -> str | None:
        swap = ChampionSwap(registry, NO_REDIS)
        await swap.refresh()
        version = swap.current.version if swap.current else None
        await swap.close()
        return version

    version = asyncio.run(start())
    return version, "".join(
        r.message for r in caplog.records if r.name == "student.serve.swap" and r.levelname == "ERROR"
    )


def follow(advice: str) -> None:
    """Do what the message says, but for the restart of the learner."""
    assert "restart the learner ('graft student train')" in advice
    if folder := re.search(r"remove the folder (\S+) and restart", advice):
        shutil.rmtree(folder[1])


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "model": lambda folder: change_a_byte(folder / "v000003" / MODEL_FILE),
    "learner": lambda folder: change_a_byte(folder / "v000003" / LEARNER_FILE),
    "no model": lambda folder: (folder / "v000003" / MODEL_FILE).unlink(),
    "no learner": lambda folder: (folder / "v000003" / LEARNER_FILE).unlink(),
    "manifest": lambda folder: (folder / "v000003" / MANIFEST_FILE).write_text(f'{{"format": {FORMAT}, "version"'),
    "empty manifest": lambda folder: (folder / "v000003" / MANIFEST_FILE).write_text(f'{{"format": {FORMAT}}}'),
    "no manifest": lambda folder: (folder / "v000003" / MANIFEST_FILE).unlink(),
    "champion": lambda folder: (folder / "champion").write_bytes(b"v0000\xff"),
    "champion's folder": lambda folder: shutil.rmtree(folder / "v000003"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_advice_followed_literally_lets_the_learner_go_on_and_the_scorer_serve(
    toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    registry, whole = Registry(tmp_path / "versions"), Registry(tmp_path / "whole")
    for count in (40, 80):  # versions 1 to 3: untaught, 40 examples, 80 examples
        learn(toy, registry, count)
    assert served(registry, caplog) == ("v000003", "")
    DAMAGES[damage](registry.folder)

    _, refusal = served(registry, caplog)
    if refusal:
        follow(refusal)
    else:  # what the scorer does not read, the learner reports
        with pytest.raises(VersionError) as caught:
            learn(toy, registry, 120)
        follow(str(caught.value))
    learn(toy, registry, 120)

    assert served(registry, caplog) == ("v000004", "")
    assert registry.load_manifest("v000004").examples == 120
    learn(toy, whole, 120)
    _, tensors = registry.load_model("v000004")
    _, expected = whole.load_model("v000002")
    assert all((tensors[name] == expected[name]).all() for name in expected)


def test_a_learner_without_new_examples_promotes_the_version_before_one_that_was_removed(
    toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path / "versions")
    for count in (40, 80):
        learn(toy, registry, count)
    shutil.rmtree(registry.folder / "v000003")
    learn(toy, registry, 40)
    assert registry.champion() == "v000002"
    assert "no champion was there; version v000002 serves" in caplog.text


def test_a_full_disk_ends_the_learner_with_one_line_and_the_next_one_loses_nothing(
    toy: Any, tmp_path: Path, disk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry, whole = Registry(disk.folder / "versions"), Registry(tmp_path / "whole")
    learn(toy, registry, 40)
    disk.fill()
    for _ in range(2):  # also when it is started again too early
        with pytest.raises(GraftError) as caught:
            learn(toy, registry, 80)
        assert re.fullmatch(
            rf"{registry.folder}\S*: cannot be written: No space left on device; make room on its disk, [^\n]*",
            str(caught.value),
        )
        assert served(registry, caplog) == ("v000002", "")
    disk.make_room()
    learn(toy, registry, 80)
    learn(toy, whole, 40)
    learn(toy, whole, 80)
    newest, expected = registry.load_learner(str(registry.latest())), whole.load_learner("v000003")
    assert newest[0].examples == 80
    assert {name: t.tobytes() for name, t in newest[1].items()} == {n: t.tobytes() for n, t in expected[1].items()}
