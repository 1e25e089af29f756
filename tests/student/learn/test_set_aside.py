"""What could not be learnt is found again: once, and not without end."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from stream.log.examples import ExampleRecord
from student.learn.process.set_aside import SET_ASIDE, Rejected, SetAside


def rejected(toy: Any, *offsets: int, partition: int = 0) -> list[Rejected]:
    return [Rejected(ExampleRecord(partition, offset, toy.example(offset)), f"reason {offset}") for offset in offsets]


def lines(folder: Path, name: str = "set_aside.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_line_says_where_the_example_is_and_why_it_was_not_learnt(
    toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = SET_ASIDE._value.get()
    SetAside(tmp_path).add(rejected(toy, 7, 8, partition=3))
    (first, second) = lines(tmp_path)
    assert first.pop("set_aside_at_ms") > 1_700_000_000_000
    assert first == {"partition": 3, "offset": 7, "impression_id": "m7", "reason": "reason 7"}
    assert second["offset"] == 8
    assert SET_ASIDE._value.get() - before == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        "not learnt: examples=2, the first one at partition=3 offset=7: reason 7; "
        f"{tmp_path}/set_aside.jsonl lists them"
    )


def test_a_restart_adds_no_line_twice(toy: Any, tmp_path: Path) -> None:
    SetAside(tmp_path).add(rejected(toy, 1, 2))
    SetAside(tmp_path).add(rejected(toy, 2, 3))
    assert [line["offset"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_line_that_a_kill_has_cut_stands_alone(toy: Any, tmp_path: Path) -> None:
    SetAside(tmp_path).add(rejected(toy, 1, 2))
    path = tmp_path / "set_aside.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    SetAside(tmp_path).add(rejected(toy, 1, 2))
    whole = path.read_text().splitlines()
    assert [json.loads(whole[n])["offset"] for n in (0, 2)] == [1, 2]


def test_the_files_are_bounded_and_keep_the_newest(toy: Any, tmp_path: Path) -> None:
    for first in range(0, 100, 5):
        SetAside(tmp_path, most_lines=20).add(rejected(toy, *range(first, first + 5)))
    assert [line["offset"] for line in lines(tmp_path)] == list(range(80, 100))
    assert [line["offset"] for line in lines(tmp_path, "set_aside.1.jsonl")] == list(range(60, 80))
