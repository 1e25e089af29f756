"""Files as Excel, databases and hand-written programs leave them: no row is lost or changed without being told."""

import json
import os
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.project import load_project
from tests.graft.init.conftest import read_events

HEAD = "user_id,item_id,ts,clicked,device\n"


def rows(first, last, device="tv"):
    return "".join(f"u{n % 50},i{n % 9},{1_700_000_000 + n},{n % 2},{device}\n" for n in range(first, last))


OPEN_QUOTES = {
    "to the end of the file": ("a.csv", HEAD + rows(0, 100) + rows(100, 101, '"The') + rows(101, 200)),
    "to the next one": (
        "a.csv",
        HEAD + rows(0, 100) + rows(100, 101, '"The') + rows(101, 150) + rows(150, 151, '"The') + rows(151, 200),
    ),
    "in another column": ("a.csv", HEAD + rows(0, 100) + 'u1,"i1,1700000100,1,tv\n' + rows(101, 200)),
    "tabs": ("a.tsv", (HEAD + rows(0, 9) + rows(9, 10, '"The') + rows(10, 99)).replace(",", "\t")),
}


@pytest.mark.parametrize("case", OPEN_QUOTES)
def test_rows_within_a_quote_that_is_not_closed_are_an_error_and_not_lost(tmp_path, init, case):
    name, content = OPEN_QUOTES[case]
    (tmp_path / name).write_text(content)
    result = init("--events", tmp_path / name, "--yes")
    assert result.exit_code == 1
    assert "rows lie within quotes that are not closed, the first in" in result.output
    assert not (tmp_path / "shop").exists()


def test_texts_of_many_lines_are_no_open_quotes(tmp_path, summary):
    text = '"dear shop, hello,\nit is good, but, well\n\nnot, that, good, really\nbye, Ann"'
    (tmp_path / "a.csv").write_text(HEAD + rows(0, 100) + rows(100, 130, text))
    said = summary("--events", tmp_path / "a.csv")
    assert said["impressions"] == 130


def test_lines_that_were_left_out_are_told_where_no_row_is_left(tmp_path, init):
    (tmp_path / "a.csv").write_text(HEAD + "".join(f'u{n},i1,17000000{n},1,"say \\"a, b\\""\n' for n in range(10, 40)))
    result = init("--events", tmp_path / "a.csv", "--yes")
    assert "left out: 30 lines with another number of fields than the header's 5" in result.output


def test_a_line_that_names_the_delimiter_and_spaces_around_fields_are_no_part_of_them(tmp_path, summary):
    (tmp_path / "a.csv").write_text(
        "sep=;\nuser_id; item_id; ts; clicked\nu1; i 1; 1700000000; 1\nu2; NULL; 1700000001; \n"
    )
    said = summary("--events", tmp_path / "a.csv")
    shown = next(event for event in read_events(tmp_path / "shop") if event["type"] == "impression")
    assert (said["impressions"], said["feedback"]) == (1, 1)
    assert (shown["user_id"], shown["item_id"], shown["event_time_ms"]) == ("u1", "i 1", 1_700_000_000_000)


def test_what_r_and_excel_write_where_nothing_is_does_not_make_a_rating_a_text(tmp_path, summary):
    ratings = ["NA", "4", "3.5", "#N/A", "5", "N/A"]
    lines = "".join(f'"u{n}","i{n % 7}",{1_700_000_000 + n},{ratings[n % 6]}\n' for n in range(60))
    (tmp_path / "a.csv").write_text('"user","item","time","rating"\n' + lines)
    said = summary("--events", tmp_path / "a.csv")
    assert said["labels"] == ["liked = rating >= 5", "rating = rating"]
    told = [event["value"] for event in read_events(tmp_path / "shop") if event.get("task") == "rating"]
    assert sorted(set(told)) == [3.5, 4.0, 5.0]
    assert len(told) == 30


def test_a_pipe_is_said_to_be_one(tmp_path, init):
    os.mkfifo(tmp_path / "a.csv")
    assert "no file but a pipe or a device" in init("--events", tmp_path / "a.csv", "--yes").output


def test_ids_in_json_that_look_like_dates_stay_as_they_are_written(tmp_path, summary):
    lines = [
        {"user": {"id": f"u{n}"}, "item": {"id": f"2024-01-{n + 1:02d}"}, "ts": f"2024-02-{n + 1:02d} 10:00:00"}
        for n in range(28)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary("--events", tmp_path / "a.jsonl")
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [event["item_id"] for event in shown] == [f"2024-01-{n + 1:02d}" for n in range(28)]
    assert shown[0]["event_time_ms"] == 1_706_781_600_000


def test_a_column_that_stands_twice_in_parquet_or_json_is_an_error(tmp_path, init):
    columns = [["u"], ["i"], [1_700_000_000], [1], [0]]
    pq.write_table(pa.table(columns, ["user", "item", "ts", "clicked", "clicked"]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"user": {"id": 1}, "user.id": 2, "item": 1, "ts": 1700000000}\n')
    for name, column in (("a.parquet", "clicked"), ("a.jsonl", "user.id")):
        result = init("--events", tmp_path / name, "--yes")
        assert f"the column '{column}' stands more than once; rename one" in result.output


def test_decimals_and_bytes_as_ids_are_kept_apart(tmp_path, summary):
    users = [uuid.UUID(int=(255 << 120) + n).bytes for n in range(200)]
    table = {
        "user_id": pa.array(users, pa.binary(16)),
        "item_id": pa.array([Decimal(1_234_567_890_123_456_789 + n) for n in range(200)], pa.decimal128(38, 0)),
        "ts": pa.array([1_700_000_000 + n for n in range(200)]),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    summary("--events", tmp_path / "a.parquet")
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [event["user_id"] for event in shown] == [user.hex() for user in users]
    assert [event["item_id"] for event in shown] == [1_234_567_890_123_456_789 + n for n in range(200)]


def test_bytes_that_are_no_text_become_their_hex_digits_and_texts_stay(tmp_path, summary):
    table = {"user_id": pa.array([b"anna", b"\xff\xfe"], pa.binary()), "item": ["a", "b"], "ts": [1_700_000_000] * 2}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    summary("--events", tmp_path / "a.parquet")
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [event["user_id"] for event in shown] == ["anna", "fffe"]


def test_the_index_of_pandas_and_what_follows_a_last_delimiter_are_not_used(tmp_path, summary):
    lines = "".join(f"{n},u{n},i{n},{1_700_000_000 + n},{n % 2},\n" for n in range(2))
    (tmp_path / "a.csv").write_text(",user_id,item_id,ts,clicked,\n" + lines)
    items = {"item_id": ["i0", "i1"], "price": [1.5, 2.5], "Unnamed: 0": [0, 1], "__index_level_0__": [0, 1]}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    said = summary("--events", tmp_path / "a.csv", "--items", tmp_path / "items.parquet")
    assert (said["labels"], said["unused"]) == (["clicked = clicked"], ["(column 1)", "(column 6)"])
    names = pq.read_schema(tmp_path / "shop" / "feature_repo" / "data" / "item_profile.parquet").names
    assert names == ["item_id", "price", "event_timestamp"]


def test_a_map_as_spark_writes_it_is_a_column_of_texts(tmp_path, summary):
    tags = pa.array([[("a", 1)], [("b", 2)], None], pa.map_(pa.string(), pa.int64()))
    table = {"user_id": [1, 2, 3], "item_id": [1, 2, 3], "ts": [1_700_000_000] * 3, "clicked": [0, 1, 0], "tags": tags}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert summary("--events", tmp_path / "a.parquet")["unused"] == ["tags"]


@pytest.mark.parametrize("words", [("yes", "no"), ("TRUE", "FALSE"), ("true", "0")])
def test_yes_and_no_as_context_become_1_and_0(tmp_path, summary, words):
    lines = "".join(f"u{n % 5},i{n % 9},{1_700_000_000 + n},{n % 2},{words[n % 3 == 0]}\n" for n in range(60))
    (tmp_path / "a.csv").write_text(HEAD + lines)
    summary("--events", tmp_path / "a.csv")
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [event["context"]["device"] for event in shown] == [int(n % 3 > 0) for n in range(60)]


def test_yes_and_no_as_context_of_events_that_are_copied_stay_texts(tmp_path, init):
    shown = [
        {"type": "impression", "impression_id": f"v{n}", "user_id": 1, "item_id": n % 4}
        | {"event_time_ms": 1_700_000_000_000 + n, "context": {"vip": ("no", "yes")[n % 2]}}
        for n in range(20)
    ]
    told = [{"type": "feedback", "impression_id": "v3", "task": "like", "value": 1, "event_time_ms": 1_700_000_000_900}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in shown + told))
    result = init("--events", tmp_path / "events.jsonl", "--yes")
    assert "dead letters" not in result.output, result.output
    assert load_project(tmp_path / "shop").features.context["vip"].dtype == "str"
