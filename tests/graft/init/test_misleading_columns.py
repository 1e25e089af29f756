"""Columns that would be learnt and mislead: context written after the answer, labels that begin late, amounts alone."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.graft.test_look import look

ROWS = 2_000


class Row(NamedTuple):
    """The number of a row, its label, and a number from 0 to 1 that tells nothing."""

    i: int
    y: int
    noise: float


def write_log(path: Path, **columns: Callable[[Row], Any]) -> Path:
    """A log of 2,000 rows, one a minute, whose label is drawn; `columns`: the other ones by name."""
    draw = random.Random(3)
    lines = [",".join(["user_id", "item_id", "ts", "clicked", *columns])]
    for i in range(ROWS):
        row = Row(i, int(draw.random() < 0.3), draw.random())
        known = [i % 40, i % 77, 1_700_000_000 + 60 * i, row.y]
        lines.append(",".join(str(value) for value in known + [of(row) for of in columns.values()]))
    path.write_text("\n".join(lines) + "\n")
    return path


LEAKS = {
    "the label itself": lambda row: row.y,
    "its opposite, as yes and no": lambda row: "no" if row.y else "yes",
    "a text": lambda row: "thanks" if row.y else "start",
    "a number that follows from it": lambda row: 50 * row.y + row.noise,
}


@pytest.mark.parametrize("case", LEAKS)
def test_context_that_tells_the_label_by_itself_is_told(tmp_path, summary, case):
    log = write_log(tmp_path / "log.csv", device=LEAKS[case])
    told = "\n".join(summary("--events", log)["only_you_know"])
    assert "whether context device is known when the item is shown: it alone tells clicked (AUC 1.00)" in told
    assert "context device alone tells clicked (AUC 1.00): leave it out" in "\n".join(look(log)["advice"])


INNOCENT = {
    "a constant": lambda _: "tv",
    "a number that helps": lambda row: row.y + 5 * row.noise,
    "a text of many values": lambda row: f"page-{row.i}",
    "a number that is missing": lambda row: "" if row.i % 2 else row.i,
}


@pytest.mark.parametrize("case", INNOCENT)
def test_context_that_does_not_tell_the_label_is_no_leak(tmp_path, case):
    found = look(write_log(tmp_path / "log.csv", page=INNOCENT[case]))
    assert found["leaks"] == []


def test_few_rows_tell_no_leak(tmp_path):
    log = write_log(tmp_path / "log.csv", device=LEAKS["the label itself"])
    few = tmp_path / "few.csv"
    few.write_text("".join(log.read_text().splitlines(keepends=True)[:500]))
    assert look(few)["leaks"] == []


def test_a_label_that_begins_late_is_told_with_its_time_and_is_no_drift(tmp_path, summary):
    log = write_log(tmp_path / "log.csv", saved=lambda row: "" if row.i < 1_200 else row.y)
    told, found = summary("--events", log)["notes"], look(log)
    assert any("saved: no row before 2023-11-15 18:13:20 UTC says yes or no" in note for note in told)
    assert [task["begins_ms"] for task in found["tasks"]] == [None, (1_700_000_000 + 60 * 1_200) * 1_000]
    assert any("no row before 2023-11-15 18:13:20 UTC says yes or no to saved" in line for line in found["advice"])
    assert not any("saved drifts" in line for line in found["advice"])


@pytest.mark.parametrize("no", ["0", ""])
def test_a_label_with_gaps_or_without_a_no_does_not_begin_late(tmp_path, no):
    log = write_log(tmp_path / "log.csv", saved=lambda row: (1 if row.y and row.i > 500 else no) if row.i % 3 else "")
    assert all(task["begins_ms"] is None for task in look(log)["tasks"])


def test_a_log_of_amounts_alone_is_asked_whether_each_row_is_a_yes(tmp_path, init):
    lines = "".join(f"u{i % 7},i{i % 9},{1_700_000_000 + i},{1 + i % 3}\n" for i in range(100))
    (tmp_path / "log.csv").write_text("user_id,item_id,ts,qty\n" + lines)
    result = init("--events", tmp_path / "log.csv", "--yes", "--json")
    assert "name that with --label 'taken = 1'" in "\n".join(json.loads(result.stdout)["only_you_know"])


def test_a_number_that_was_named_as_the_label_is_not_asked_for(tmp_path, summary):
    lines = "".join(f"u{i % 7},i{i % 9},{1_700_000_000 + i},{1 + i % 3}\n" for i in range(100))
    (tmp_path / "log.csv").write_text("user_id,item_id,ts,qty\n" + lines)
    told = summary("--events", tmp_path / "log.csv", "--label", "qty = qty")["only_you_know"]
    assert not any("taken = 1" in line for line in told)
