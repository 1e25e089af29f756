"""What `graft look` tells of logs of which every figure is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from graft.cli import cli
from tests.graft.init.conftest import write_teacher

DAY_S = 86_400
FIRST_S = 1_700_006_400  # a midnight


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def look(*arguments: str | Path) -> dict[str, Any]:
    result = run("look", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """A log of 20 rows: two a day, none on days 3 and 4; user 1 in every other row; item i in row i alone."""

    def write(changes: str = "") -> Path:
        lines = ["user,item,ts,clicked,stars"]
        for i in range(20):
            day = i // 2 if i < 6 else i // 2 + 2
            user = 1 if i % 2 else 100 + i
            lines.append(f"{user},{i},{FIRST_S + day * DAY_S + i},{int(i >= 10)},{i / 4}")
        path = tmp_path / "log.csv"
        path.write_text("\n".join(lines) + "\n" + changes)
        return path

    return write


def test_the_figures_of_a_log_are_those_of_its_rows(log):
    found = look(log())
    assert (found["rows"], found["days"], found["days_without"], found["bytes"]) == (20, 12, 2, log().stat().st_size)
    assert found["rows_by_day"] == [2, 2, 2, 0, 0, 2, 2, 2, 2, 2, 2, 2]
    assert (found["first_ms"], found["gap_ms"]) == (FIRST_S * 1000, (3 * DAY_S + 1) * 1000)
    users, items = found["users"], found["items"]
    assert (users["distinct"], users["rows_most"], users["once"], users["unseen"]) == (11, 10, 10 / 11, 11 / 20)
    assert users["unseen_by_tenth"] == [1.0] + [0.5] * 9
    assert (items["distinct"], items["unseen"]) == (20, 1.0)
    clicked, stars = found["tasks"]
    assert (clicked["name"], clicked["kind"], clicked["mean"]) == ("clicked", "binary", 0.5)
    assert clicked["by_tenth"] == [0.0] * 5 + [1.0] * 5
    assert (stars["kind"], stars["mean"], stars["low"], stars["high"]) == ("regression", 19 / 8, 0.0, 4.75)


def test_what_is_left_out_doubled_or_out_of_order_is_counted(log):
    late, same = f"7,7,{FIRST_S + 1},0,1\n", f"118,18,{FIRST_S + 11 * DAY_S + 18},1,1\n"
    found = look(log(f"{late}{same}1,1,3900000000,0,1\n,1,{FIRST_S},0,1\n"))
    assert found["left_out"] == {"rows without user id": 1, "rows whose time is in the future": 1}
    assert (found["rows"], found["duplicates"], found["unsorted"]) == (22, 1, 1)


ADVICE = {
    "out of order": (f"7,7,{FIRST_S},0,1\n", "stream.dedup_seconds"),
    "the future": ("1,1,3900000000,0,1\n", "stream.max_ahead_seconds"),
    "drift": (
        "",
        "clicked drifts, from a mean of 0 in the first tenth to 1 in the last: features.aggregates.half_life",
    ),
    "few rows": ("", "20 rows are few"),
    "new items": ("", "of the last tenth's rows have items that nobody has seen"),
    "a far label": (f"1,1,{FIRST_S + 99 * DAY_S},1,9000\n", "set tasks.range"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_what_will_hurt_is_told_with_the_key_that_handles_it(log, case):
    changes, key = ADVICE[case]
    rows = "".join(f"{i},{i},{FIRST_S + 40 * DAY_S + i},1,1\n" for i in range(300)) if case == "a far label" else ""
    assert key in "\n".join(look(log(rows + changes))["advice"])


def test_a_label_that_never_changes_is_told(log):
    assert "clicked is 1 in every row" in "\n".join(look(log(), "--label", "clicked = 1")["advice"])


def test_an_even_log_has_nothing_that_will_hurt(tmp_path):
    rows = "".join(f"{i % 20},{i % 30},{FIRST_S + 60 * i},{int(i % 7 < 3)}\n" for i in range(2_000))
    (tmp_path / "log.csv").write_text("user,item,ts,clicked\n" + rows)
    assert look(tmp_path / "log.csv")["advice"] == []
    assert "nothing in it will hurt" in run("look", tmp_path / "log.csv").output


def test_an_event_file_is_read_with_its_feedback_and_delays(tmp_path):
    def shown(number: int) -> dict[str, Any]:
        known = {"type": "impression", "impression_id": f"v{number}", "user_id": "a", "item_id": f"b{number % 3}"}
        return known | {"event_time_ms": FIRST_S * 1000 + number * 1000, "context": {"hour": number}}

    def told(number: int, task: str, value: float, after_ms: int) -> dict[str, Any]:
        known = {"type": "feedback", "impression_id": f"v{number}", "task": task, "value": value}
        return known | {"event_time_ms": FIRST_S * 1000 + number * 1000 + after_ms}

    events = [shown(number) for number in range(10)]
    events += [told(2, "like", 1, 500), told(3, "like", 1, 9_000), told(3, "rating", 2, 0), told(3, "rating", 4.5, 10)]
    events += [told(77, "like", 1, 0), {"noise": 1}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    found = look(tmp_path / "events.jsonl")
    like, rating = found["tasks"]
    assert (like["name"], like["kind"], like["mean"], like["delay_high_ms"]) == ("like", "binary", 0.2, 9_000)
    assert (rating["kind"], rating["mean"], rating["labelled"]) == ("regression", 4.5, 0.1), "the last feedback holds"
    assert (found["rows"], found["without_impression"]) == (10, 1)
    assert found["left_out"] == {"lines that are neither impression nor feedback": 1}
    teacher = write_teacher(tmp_path / "t.onnx", {"hour": ("float", [])}, ["like"])
    said = run(
        "init", tmp_path / "shop", "--events", tmp_path / "events.jsonl", "--teacher", teacher, "--yes", "--json"
    )
    assert json.loads(said.stdout)["teacher_inputs"] == {"hour": "context:hour"}
    assert (tmp_path / "shop" / "events.jsonl").read_bytes() == (tmp_path / "events.jsonl").read_bytes()
    assert "window_seconds = 9 # guessed: the longest time" in (tmp_path / "shop" / "graft.toml").read_text()


def test_impressions_with_the_id_of_an_earlier_one_are_told(tmp_path):
    known = {"impression_id": "v", "event_time_ms": FIRST_S * 1000}
    shown = {"type": "impression", "user_id": "a", "item_id": "b", **known}
    told = {"type": "feedback", "task": "like", "value": 1, **known}
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (shown, told, shown, shown)))
    found = look(tmp_path / "events.jsonl")
    assert found["doubled_impressions"] == 2
    assert any("2 impressions have the id of an earlier one: the stream drops them" in line for line in found["advice"])


def test_a_project_is_told_what_its_tables_and_its_teacher_know(tmp_path, log):
    (tmp_path / "people.csv").write_text("id,age\n1,30\n100,20\n")
    teacher = write_teacher(tmp_path / "t.onnx", {"item_id": ("int64", [])}, ["click"])
    made = ["--users", tmp_path / "people.csv", "--teacher", teacher]
    assert run("init", tmp_path / "shop", "--events", log(), *made, "--yes").exit_code == 0
    toml = tmp_path / "shop" / "graft.toml"
    fed = 'item_id = { kind = "feature", feature = "item_id", default = 0 }'
    text = toml.read_text()
    assert fed in text
    table = "{ 0 = 5, 1 = 6 }"
    toml.write_text(
        text.replace(fed, f'item_id = {{ kind = "lookup", feature = "item_id", table = {table}, default = 0 }}')
    )
    found = look(tmp_path / "shop")
    assert found["overlaps"] == [
        {"by": "user_profile", "of": "user_id", "known": 11 / 20, "ids": 2 / 11},
        {"by": "teacher.inputs.item_id", "of": "item_id", "known": 2 / 20, "ids": 2 / 20},
    ]
    told = "\n".join(found["advice"])
    assert "user_profile knows 55.0% of the rows by user_id; the other rows get features.defaults" in told
    assert "teacher.inputs.item_id knows 10.0% of the rows by item_id; the other rows get its default" in told


def test_ids_that_no_input_of_the_teacher_can_be_are_not_known_to_it(tmp_path, log):
    teacher = write_teacher(tmp_path / "t.onnx", {"item_id": ("int64", [])}, ["click"])
    assert run("init", tmp_path / "shop", "--events", log(), "--teacher", teacher, "--yes").exit_code == 0
    (tmp_path / "shop" / "events.parquet").unlink()
    known = {"type": "impression", "user_id": 1, "event_time_ms": FIRST_S * 1000}
    events = [known | {"impression_id": f"v{i}", "item_id": item} for i, item in enumerate((1, 2, 3, "B07"))]
    told = {"type": "feedback", "impression_id": "v0", "task": "clicked", "value": 1, "event_time_ms": FIRST_S * 1000}
    lines = "".join(json.dumps(event) + "\n" for event in [*events, told])
    (tmp_path / "shop" / "events.jsonl").write_text(lines)
    assert {"by": "teacher.inputs.item_id", "of": "item_id", "known": 0.75, "ids": 0.75} in look(tmp_path / "shop")[
        "overlaps"
    ]


def test_a_fault_of_a_projects_features_is_told(tmp_path, log):
    assert run("init", tmp_path / "shop", "--events", log(), "--yes").exit_code == 0
    toml = tmp_path / "shop" / "graft.toml"
    toml.write_text(toml.read_text().replace("item_activity:shown", "item_activity:show"))
    found = run("look", tmp_path / "shop")
    assert found.exit_code == 2, found.output
    assert "no feature of view 'item_activity' 'show'" in found.stderr


def test_the_page_has_a_plot_of_each_figure_and_escapes_what_the_log_has(tmp_path, log):
    page = tmp_path / "look.html"
    odd = tmp_path / "<b>&.csv"
    odd.write_text(log().read_text())
    assert run("look", odd, "--html", page).exit_code == 0
    text = page.read_text()
    assert text.count("<svg") == 5
    assert "<b>" not in text
    refused = run("look", odd, "--html", tmp_path / "none" / "look.html")
    assert "look.html: cannot be written: No such file or directory" in refused.output
    assert refused.exit_code == 1


def test_what_cannot_be_looked_at_is_one_error(tmp_path):
    (tmp_path / "few.csv").write_text("user,b,ts\n1,2,1700000000\n")
    result = run("look", tmp_path / "few.csv")
    assert result.exit_code == 1
    assert "which column is the item? none is called so; say --map item=COLUMN" in result.output
