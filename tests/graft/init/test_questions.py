"""Logs of which a guess would be wrong without a word: init asks, and what it does not read it calls so."""

import json

import pytest

from graft.commands import init as init_command
from graft.commands.options import columns_given
from tests.graft.init.conftest import read_events


def log(names, rows):
    return names + "\n" + "".join(row + "\n" for row in rows)


def shop(action):
    """200 rows: who, what, when, and what the n-th row says."""
    return [f"{n % 30},{n % 20},{1_700_000_000 + n},{action(n)}" for n in range(200)]


EVENTS = log("user_id,product_id,ts,event_type", shop(lambda n: ["view", "view", "cart", "purchase"][n % 4]))
ASKED = {
    "numbers of orders as times": (
        log(
            "customer_id,product_id,order_number,bought", [f"{n % 9},{n % 7},{1_700_000_000 + n},1" for n in range(99)]
        ),
        "which column is the time? no column holds times",
    ),
    "telephones beside dates of another form": (
        log(
            "user,item,purchase_date,phone",
            [f"{n % 9},{n % 7},{n % 28 + 1}.01.2024,{1_700_000_000 + n}" for n in range(99)],
        ),
        "'purchase_date' is called so, but its values, such as 1.01.2024",
    ),
    "an age and a category": (
        log("user_age,product_category,ts,clicked", [f"{n % 60},c{n % 7},{1_700_000_000 + n},1" for n in range(99)]),
        "which column is the user? 'user_age' may be it by its name; say --map user=COLUMN",
    ),
    "kinds of events": (EVENTS, """say --label "purchase = event_type == 'purchase'", or --label "positive = 1\""""),
    "decimal commas": (
        log("user;item;ts;rating", [f"u{n % 9};i{n % 7};{1_700_000_000 + n};{n % 5},5" for n in range(99)]),
        "'rating' has values such as 0,5, 1,5, 2,5, which are neither numbers such as 3.5 nor yes and no",
    ),
    "money": (log("user_id,sku,ts,revenue", shop(lambda n: f"${n * 3.5}")), "'revenue' has values such as $0.0, $3.5"),
    "another language": (
        log("user_id,sku,ts,bought", shop(lambda n: ["ja", "nein"][n % 2])),
        """say --label "nein = bought == 'nein'\"""",
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_would_be_guessed_wrong_is_asked(tmp_path, init, case):
    content, question = ASKED[case]
    (tmp_path / "log.csv").write_text(content)
    result = init("--events", tmp_path / "log.csv", "--yes")
    assert result.exit_code == 1
    assert question in result.output
    assert not (tmp_path / "shop").exists()


def test_a_terminal_is_asked_for_the_label_too(tmp_path, init, monkeypatch):
    monkeypatch.setattr(init_command, "is_terminal", lambda: True)
    (tmp_path / "log.csv").write_text(EVENTS)
    result = init("--events", tmp_path / "log.csv", answers="bought = event_type == 'purchase'\ny\n")
    assert result.exit_code == 0, result.output
    assert "label, such as purchase = event_type == 'purchase' or positive = 1" in result.output
    told = [event["task"] for event in read_events(tmp_path / "shop") if event["type"] == "feedback"]
    assert told == ["bought"] * 50


def test_an_answer_that_is_no_label_is_asked_for_again_and_questions_are_no_part_of_the_json(
    tmp_path, init, monkeypatch
):
    monkeypatch.setattr(init_command, "is_terminal", lambda: True)
    (tmp_path / "log.csv").write_text(EVENTS)
    answers = "bought = event == 'purchase'\nbought = event_type == 'purchase'\ny\n"
    result = init("--events", tmp_path / "log.csv", "--json", answers=answers)
    assert result.exit_code == 0, result.output
    assert "no such column, got 'event'; did you mean event_type?" in result.stderr
    assert "which rows are a yes?" in result.stderr
    assert "Write this?" in result.stderr
    assert "Write this?" not in result.stdout
    assert "which rows are a yes?" not in result.stdout


def test_the_answer_on_the_command_line_is_taken(tmp_path, summary):
    (tmp_path / "log.csv").write_text(EVENTS)
    said = summary("--events", tmp_path / "log.csv", "--label", "positive = 1")
    assert (said["labels"], said["feedback"]) == (["positive = 1"], 200)


def test_a_purchase_log_with_its_orders_numbers_has_nothing_to_ask(tmp_path, summary):
    (tmp_path / "log.csv").write_text(log("user_id,product_id,ts,order", shop(lambda n: f"ORD-{n // 3}")))
    assert summary("--events", tmp_path / "log.csv")["labels"] == ["positive = 1"]


def test_a_time_of_day_beside_a_date_and_a_label_of_texts_are_said_to_be_unread(tmp_path, init):
    rows = [f'{n % 9},{n % 7},2024-01-0{n % 9 + 1},12:0{n % 9}:00,{n % 2},"{n},000.5"' for n in range(99)]
    (tmp_path / "log.csv").write_text(log("user,item,date,time,clicked,revenue", rows))
    result = init("--events", tmp_path / "log.csv", "--yes")
    assert result.exit_code == 0
    assert "called as a time, but its values, such as 12:00:00, 12:01:00, 12:02:00, are no ISO 8601" in result.output
    assert "called as a label, but its values are neither numbers such as 3.5 nor yes and no" in result.output


def test_ids_of_two_kinds_and_of_two_cases_are_noted(tmp_path, summary):
    rows = [
        f"{'guest' if n == 7 else n % 9},{'aB' if n % 2 else 'ab'}-{n % 3},{1_700_000_000 + n},1" for n in range(99)
    ]
    (tmp_path / "log.csv").write_text(log("user_id,item_id,ts,clicked", rows))
    notes = summary("--events", tmp_path / "log.csv")["notes"]
    assert any("user_id: most ids are integers, but 'guest' is none, so all are texts" in note for note in notes)
    assert any("item_id: 3 ids differ from another one in upper and lower case alone" in note for note in notes)
    assert not any("user_id:" in note and "case alone" in note for note in notes)


def test_a_yes_or_no_that_is_given_as_context_is_no_label_too(tmp_path, summary):
    (tmp_path / "log.csv").write_text(
        log("user_id,item_id,ts,is_mobile,clicked", shop(lambda n: f"{n % 2},{n % 3 // 2}"))
    )
    said = summary("--events", tmp_path / "log.csv", "--map", "context=is_mobile,is_mobile")
    assert (said["labels"], said["context"]) == (["clicked = clicked"], ["is_mobile"])


@pytest.mark.parametrize(("value", "got"), [([0.5, 1], "lists"), ("x" * 257, "longer ones")])
def test_a_column_that_no_context_can_hold_is_refused(tmp_path, init, value, got):
    rows = [
        {"user_id": n % 3, "item_id": n, "ts": 1_700_000_000 + n, "clicked": n % 2, "seen": value} for n in range(9)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = init("--events", tmp_path / "log.jsonl", "--map", "context=seen", "--yes")
    assert f"--map context=seen: must be numbers or texts of at most 256 characters, got {got}" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            ["--map", "context=clicked", "--label", "x = clicked"],
            "context=clicked: is a label, which nobody knows when",
        ),
        (["--map", "context=user_id"], "--map context=user_id: is the user already"),
        (["--map", "item=user_id", "--map", "user=user_id"], "--map item=user_id: is the user already"),
        (["--map", "item=user_id"], "which column is the user? none is called so"),
    ],
)
def test_a_column_of_two_roles_is_refused_or_the_other_role_is_asked_for(tmp_path, init, given, fault):
    (tmp_path / "log.csv").write_text(log("user_id,item_id,ts,clicked", shop(lambda n: n % 2)))
    result = init("--events", tmp_path / "log.csv", *given, "--yes")
    assert fault in result.output
    assert result.exit_code == 1


def test_one_and_minus_one_are_yes_and_no_where_the_name_says_it(tmp_path, summary):
    (tmp_path / "log.csv").write_text(
        log("user_id,item_id,ts,label,rating", shop(lambda n: f"{n % 2 * 2 - 1},{n % 2 * 2 - 1}"))
    )
    said = summary("--events", tmp_path / "log.csv")
    assert said["labels"] == ["label = label > 0", "rating = rating"]
    assert [event["task"] for event in read_events(tmp_path / "shop") if event["type"] == "feedback"].count(
        "label"
    ) == 100


@pytest.mark.parametrize("hour", [7, True])
def test_context_that_one_of_several_files_does_not_have_is_missing_there(tmp_path, summary, hour):
    rows = [{"user_id": n % 3, "item_id": n, "ts": 1_700_000_000 + n, "clicked": n % 2} for n in range(9)]
    (tmp_path / "log").mkdir()
    for name, more in (("a", {"hour": hour}), ("b", {}), ("c", {"hour": None})):
        (tmp_path / "log" / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    assert summary("--events", tmp_path / "log", "--map", "context=hour")["impressions"] == 27
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [event["context"]["hour"] for event in shown].count(int(hour)) == 9


def test_a_number_that_never_changes_is_no_yes(tmp_path, summary):
    rows = "".join(f"{n % 3},{n},{1_700_000_000 + n},1.00\n" for n in range(9))
    (tmp_path / "log.csv").write_text("user_id,item_id,ts,rating\n" + rows)
    said = summary("--events", tmp_path / "log.csv")
    assert said["labels"] == ["rating = rating"]
    assert any(told.startswith("where rating is not 1: every row says 1") for told in said["only_you_know"])


def test_a_role_of_map_may_have_spaces_around_it():
    assert columns_given(("context =a,b", " user=u", "context=c")) == {"context": ["a", "b", "c"], "user": ["u"]}
