"""Awkward logs and tables: each gives a project, or one clear question, note or error; never a traceback."""

import bz2
import gzip
import json
import re
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.init.look import judged, read
from graft.init.roles import Given
from graft.project import load_project
from tests.graft.init.conftest import read_events, write_teacher

HEAD = "user_id,item_id,timestamp,clicked\n"
ROWS = "u1,i1,1700000000,1\nu2,i2,1700000001,0\nu1,i2,1700000002,1\n"
LOG = HEAD + ROWS

READ = {
    "byte order mark": ("a.csv", "\ufeff" + LOG),
    "utf-16": ("a.csv", LOG.encode("utf-16")),
    "semicolons": ("a.csv", LOG.replace(",", ";")),
    "tabs": ("a.tsv", LOG.replace(",", "\t")),
    "bars in a file without suffix": ("log", LOG.replace(",", "|")),
    "windows line ends": ("a.csv", LOG.replace("\n", "\r\n")),
    "gzip": ("a.csv.gz", gzip.compress(LOG.encode())),
    "bzip2": ("a.csv.bz2", bz2.compress(LOG.encode())),
    "milliseconds": ("a.csv", re.sub("(17[0-9]{8})", r"\g<1>000", LOG)),
    "microseconds": ("a.csv", re.sub("(17[0-9]{8})", r"\g<1>000000", LOG)),
    "nanoseconds": ("a.csv", re.sub("(17[0-9]{8})", r"\g<1>000000000", LOG)),
    "seconds with a fraction": ("a.csv", LOG.replace("0,1\n", "0.0,1\n")),
    "times as texts": ("a.csv", LOG.replace("170000000", "2023-11-14T22:13:2")),
    "labels as words": ("a.csv", LOG.replace(",1\n", ",TRUE\n").replace(",0\n", ",no\n")),
    "unsorted": ("a.csv", HEAD + "".join(reversed(ROWS.splitlines(keepends=True)))),
    "json lines": (
        "a.jsonl",
        "".join(
            json.dumps(dict(zip(HEAD.strip().split(","), line.split(","), strict=True))) + "\n"
            for line in ROWS.splitlines()
        ),
    ),
    "mixed types": (
        "a.ndjson",
        """{"user_id": "u1", "item_id": "i1", "timestamp": 1700000000, "clicked": true}
{"user_id": "u2", "item_id": "i2", "timestamp": 1700000001.0, "clicked": "no"}
{"user_id": "u1", "item_id": "i2", "timestamp": "1700000002", "clicked": 1}
""",
    ),
    "nested objects": (
        "a.jsonl",
        "".join(
            json.dumps({"user": {"id": u}, "item": {"id": i}, "timestamp": int(t), "clicked": int(c)}) + "\n"
            for u, i, t, c in (line.split(",") for line in ROWS.splitlines())
        ),
    ),
}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("form", READ)
def test_the_same_log_in_many_forms_gives_the_same_events(tmp_path, summary, form):
    name, content = READ[form]
    summary("--events", write(tmp_path / "in" / name, content))
    events = read_events(tmp_path / "shop")
    shown = [[e["user_id"], e["item_id"], e["event_time_ms"]] for e in events if e["type"] == "impression"]
    assert shown == [
        ["u1", "i1", 1_700_000_000_000],
        ["u2", "i2", 1_700_000_001_000],
        ["u1", "i2", 1_700_000_002_000],
    ]
    clicked = [[e["impression_id"], e["value"]] for e in events if e["type"] == "feedback"]
    assert clicked == [["e000000000", 1.0], ["e000000002", 1.0]]


NOTED = {
    "duplicates": (LOG + "u1,i2,1700000002,1\n", "1 rows have the user, item and time of another one", 4),
    "future": (LOG + "u1,i2,3900000000,1\n", "1 rows whose time is in the future", 3),
    "a time of 0": (LOG * 1 + ROWS * 4 + "u1,i2,0,1\n", "1 rows whose time is before 1990", 15),
    "gaps": (LOG + ",i2,1700000003,1\nu1,,1700000003,1\nu1,i2,,1\n", "1 rows without item id", 3),
    "NaN and NULL": (LOG + "u4,i2,1700000003,NaN\nNULL,i2,1700000003,1\n", "clicked: 25.0% of the rows say nothing", 4),
    "values that no label can hold": (
        "user_id,item_id,ts,rating\n" + "u1,i1,1700000000,3.5\nu2,i2,1700000001,2.5\nu1,i2,1700000002,2e9\n",
        "rating: 33.3% of the rows say nothing, or a number beyond 1e+09; such a row has no label",
        3,
    ),
    "another number of fields": (LOG + "u1,i1\nu1,i1,1700000003,1,9\n", "2 lines with another number of fields", 3),
    "an id of 300 characters": (LOG + f"{'u' * 300},i1,1700000003,1\n", "a user id of more than 256 characters", 3),
    "quoted newlines": (LOG + '"u\n1","say ""so""",1700000003,1\n', "", 4),
    "a quote that may not be closed": (
        LOG + '"u4,i1,1700000003,1\nu5,i1,1700000004,1\nu6",i1,1700000005,1\n',
        "1 lines within a field in quotes that look like rows: a quote may not be closed",
        4,
    ),
    "times with a zone and without": (
        HEAD + "u1,i1,2023-11-14T22:13:20Z,1\nu1,i2,2023-11-14 22:13:21,0\n",
        "some times have a zone, such as 2023-11-14T22:13:20Z; those without one, such as 2023-11-14 22:13:21, are",
        2,
    ),
    "one row": (HEAD + "u1,i1,1700000000,1\n", "", 1),
    "one user": (HEAD + "u1,i1,1700000000,1\nu1,i2,1700000000,0\n", "", 2),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_is_left_out_or_odd_is_noted(tmp_path, summary, case):
    content, note, impressions = NOTED[case]
    said = summary("--events", write(tmp_path / "in.csv", content))
    assert said["impressions"] == impressions
    assert note in "\n".join(said["notes"])


REFUSED = {
    "empty": ("a.csv", "", "a.csv: empty"),
    "names alone": ("a.csv", HEAD, "no rows below the names of the columns"),
    "no time": (
        "a.csv",
        "user_id,item_id,clicked\n1,2,1\n",
        "which column is the time? no column holds times; say --map",
    ),
    "times that begin at 0": (
        "a.csv",
        "user,item,time\n1,2,5\n1,3,9\n",
        "its numbers from 5 to 9 are no times of 1990 to 2100",
    ),
    "american dates": ("a.csv", "user,item,time\n1,2,01/31/2024\n", "such as 01/31/2024, are no ISO 8601"),
    "two users": (
        "a.csv",
        "buyer_id,member_id,sku,ts\n1,2,3,1700000000\n",
        "buyer_id and member_id fit alike; say --map user=",
    ),
    "unknown names": (
        "a.csv",
        "a,b,c\nx,y,1700000000\n",
        "which column is the item? none is called so; say --map item=",
    ),
    "all in the future": (
        "a.csv",
        HEAD + "u,i,3900000000,1\n",
        "no row can be an event: 1 rows whose time is in the future",
    ),
    "no names": ("a.csv", ROWS.replace("u1", "1"), "the first line must name the columns"),
    "a name twice": ("a.csv", "user,item,item,ts\n1,2,3,1700000000\n", "'item' stands more than once"),
    "latin-1": (
        "a.csv",
        (HEAD + "\xe9,i,1700000000,1\n").encode("latin-1"),
        "is 0xe9, which is not UTF-8; convert the file",
    ),
    "double colons": ("a.dat", "1::2::3::1700000000\n", "fields with '::' between"),
    "a json array": ("a.json", '[{"user": 1}]', "one JSON array; write one object a line"),
    "zip": ("a.zip", b"PK\x03\x04", "a zip file or an Excel workbook; unpack it, or save the sheet as CSV"),
    "zstd without its name": (
        "a.csv",
        pa.compress(LOG.encode(), codec="zstd", asbytes=True),
        "compressed by zstd, but not named so; give it the suffix .zst",
    ),
    "xz": ("a.csv", b"\xfd7zXZ\x00...", "compressed by xz; unpack it"),
    "a database": ("a.csv", b"SQLite format 3\x00", "an SQLite database; export the table as CSV"),
    "gzip without its name": ("a.csv", gzip.compress(LOG.encode()), "compressed by gzip, but not named so"),
    "cut gzip": ("a.csv.gz", gzip.compress(LOG.encode() * 99)[:60], "a.csv.gz: cannot be read"),
    "no text": ("a.bin", b"\x00\x01" * 99, "not a text; readable are CSV, TSV, JSON lines and Parquet"),
    "broken parquet": ("a.parquet", b"PAR1xxxxxxxxxxxx", "a.parquet: cannot be read"),
    "one column": ("a.csv", "hello\nworld\n", "which column is the user?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_log_is_one_clear_error_and_writes_nothing(tmp_path, init, case):
    name, content, fault = REFUSED[case]
    result = init("--events", write(tmp_path / "in" / name, content), "--yes")
    assert result.exit_code == 1
    assert fault in result.output
    assert not (tmp_path / "shop").exists()


def test_an_empty_file_among_others_is_noted_and_all_empty_is_an_error(tmp_path, summary, init):
    write(tmp_path / "days" / "2023-11-13.csv", "\n")
    write(tmp_path / "days" / "2023-11-15.parquet", "")
    assert "days: empty; name the files that have the rows" in init("--events", tmp_path / "days", "--yes").output
    write(tmp_path / "days" / "2023-11-14.csv", LOG)
    said = summary("--events", tmp_path / "days")
    assert (said["impressions"], said["notes"][0]) == (3, "left out: 2 files that are empty")


def test_a_missing_file_a_folder_of_two_forms_and_an_empty_folder_are_named(tmp_path, init):
    write(tmp_path / "two" / "a.csv", LOG)
    write(tmp_path / "two" / "b.jsonl", "{}\n")
    (tmp_path / "none").mkdir()
    for where, fault in [("nowhere", "no such file"), ("two", "1 of csv and 1 of jsonl"), ("none", "no file there")]:
        assert fault in init("--events", tmp_path / where, "--yes").output


def test_float_ids_and_dictionaries_of_pandas_are_ids(tmp_path, summary):
    table = {
        "user_id": pa.array([1.0, 2.0, None]),
        "item_id": pa.array(["a", "b", "a"]).dictionary_encode(),
        "timestamp": pa.array([1_700_000_000_000] * 3, pa.timestamp("ms")),
        "clicked": [True, None, False],
    }
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    said = summary("--events", tmp_path / "in.parquet")
    assert said["impressions"] == 2
    assert [e["user_id"] for e in read_events(tmp_path / "shop") if e["type"] == "impression"] == [1, 2]


def test_leading_zeros_and_integers_beyond_64_bits_stay_texts(tmp_path, summary):
    rows = "007,12345678901234567890,1700000000,1\n008,12345678901234567891,1700000001,0\n"
    summary("--events", write(tmp_path / "in.csv", HEAD + rows))
    shown = [event for event in read_events(tmp_path / "shop") if event["type"] == "impression"]
    assert [e["user_id"] for e in shown] == ["007", "008"]
    assert [e["item_id"] for e in shown] == ["12345678901234567890", "12345678901234567891"]


def test_a_log_whose_every_row_has_another_user_is_read_and_look_names_the_keys(tmp_path, summary):
    rows = "".join(f"user-{n * 7919 % 70_001},{n % 50},{1_700_000_000 + n},{n % 3 == 0:d}\n" for n in range(70_000))
    (tmp_path / "log.csv").write_text(HEAD + rows)
    summary("--events", tmp_path / "log.csv")
    assert len({event["user_id"] for event in read_events(tmp_path / "shop") if "user_id" in event}) == 70_000
    project = load_project(tmp_path / "shop")
    found = judged(read(str(project.folder), Given()), [])
    assert (found.figures.users.distinct, found.figures.users.once) == (70_000, 1.0)
    assert any("70,000 users are more than student.remembered_ids (65,536)" in one for one in found.advice)
    assert any("70,000 users share student.table_rows (65,536)" in one for one in found.advice)


def test_a_table_without_the_logs_ids_is_named(tmp_path, init):
    write(tmp_path / "in.csv", LOG)
    write(tmp_path / "users.csv", "user_id,age\nx9,3\n")
    result = init("--events", tmp_path / "in.csv", "--users", tmp_path / "users.csv", "--yes")
    assert "no column has an id of the log's users, whose column 'user_id' has ids such as u1, u2" in result.output


def test_a_table_with_an_id_twice_keeps_its_last_row_and_says_so(tmp_path, summary):
    write(tmp_path / "in.csv", LOG)
    write(tmp_path / "items.csv", "name,sku\nold,i1\nnew,i1\n,i2\n")
    said = summary("--events", tmp_path / "in.csv", "--items", tmp_path / "items.csv")
    assert any("1 rows have an id that a later row has too" in note for note in said["notes"])
    rows = pq.read_table(tmp_path / "shop" / "feature_repo" / "data" / "item_profile.parquet").to_pylist()
    assert {row["item_id"]: row["name"] for row in rows} == {"i1": "new", "i2": None}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--map", "tme=timestamp"], "--map tme=...: no such role; did you mean time?"),
        (["--map", "time=timestmp"], "--map time=timestmp: no such column; did you mean timestamp?"),
        (["--map", "time"], "must be ROLE=COLUMN"),
        (["--map", "time=item_id"], "are no ISO 8601"),
        (["--label", "clicked"], "must be NAME = COLUMN"),
        (["--label", "x = clikced"], "no such column, got 'clikced'; did you mean clicked?"),
        (["--label", "x = clicked >= many"], "compare with a finite number or a quoted 'text', got 'many'"),
        (["--label", "x = item_id"], "its values are neither yes and no nor numbers, such as 'i1', 'i2'"),
        (["--label", "x = 1", "--label", "x = clicked"], "the name 'x' stands more than once"),
    ],
)
def test_what_is_given_wrong_is_named(tmp_path, init, given, fault):
    result = init("--events", write(tmp_path / "in.csv", LOG), *given, "--yes")
    assert result.exit_code == 1
    assert fault in result.output


def test_numbers_that_no_label_or_feature_can_be_are_missing(tmp_path, summary):
    write(
        tmp_path / "in.csv",
        "user_id,item_id,timestamp,rating,position\n1,3,1700000000,1e300,1e99\n1,9,1700000001,4.5,2\n",
    )
    write(tmp_path / "users.csv", "user_id,age\n1,1e300\n2,3.5\n")
    teacher = write_teacher(tmp_path / "t.onnx", {"age": ("float", [])}, ["like"])
    said = summary("--events", tmp_path / "in.csv", "--users", tmp_path / "users.csv", "--teacher", teacher)
    assert said["faults"] == []
    shown, told = ([e for e in read_events(tmp_path / "shop") if e["type"] == k] for k in ("impression", "feedback"))
    assert [e["context"]["position"] for e in shown] == [None, 2.0]
    assert {e["task"]: e["value"] for e in told if e["impression_id"] == "e000000001"}["rating"] == 4.5
    rows = pq.read_table(tmp_path / "shop" / "feature_repo" / "data" / "user_profile.parquet").to_pylist()
    assert [row["age"] for row in rows] == [None, 3.5]


def test_control_characters_of_a_log_are_not_sent_to_the_terminal_and_stay_out_of_the_file(tmp_path, init):
    row = '"\x1b[31mred","i\x1b]0;title\x07",1700000000,1,"a ""b""\\\n\x1b[2J\x7f"\n'
    write(tmp_path / "in.csv", f"user_id,item_id,timestamp,clicked,device\n{row}")
    teacher = write_teacher(tmp_path / "t.onnx", {"device": ("string", [])}, ["click"])
    result = init("--events", tmp_path / "in.csv", "--teacher", teacher, "--yes")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    toml = (tmp_path / "shop" / "graft.toml").read_text()
    assert "\x1b" not in toml
    assert tomllib.loads(toml)["features"]["context"]["device"]["default"] == 'a "b"\\\n\x1b[2J\x7f'
    assert read_events(tmp_path / "shop")[0]["user_id"] == "\x1b[31mred"


ODD_TABLE = """user_id,Ä b,a b,a-b,A_B,event_timestamp,item_id,评分,1st,empty
1,1,2,3,4,2024-01-01,9,5,x,
2,1,2,3,4,2024-01-01,9,5,y,
"""


def test_columns_whose_names_feast_would_not_take_are_renamed(tmp_path, summary):
    write(tmp_path / "in.csv", LOG.replace("u", "").replace("ser_id", "user_id"))
    write(tmp_path / "users.csv", ODD_TABLE)
    teacher = write_teacher(tmp_path / "t.onnx", {'the "age"': ("float", []), "é": ("string", [])}, ["li ke", "like"])
    said = summary("--events", tmp_path / "in.csv", "--users", tmp_path / "users.csv", "--teacher", teacher)
    assert said["faults"] == []
    names = pq.read_schema(tmp_path / "shop" / "feature_repo" / "data" / "user_profile.parquet").names
    assert names == [
        "user_id",
        "b",
        "a_b",
        "a_b_2",
        "a_b_3",
        "column_event_timestamp",
        "column_item_id",
        "column",
        "column_1st",
        "event_timestamp",
    ]


@pytest.mark.parametrize(
    ("feedback", "fault"),
    [
        ("", "in.jsonl: no feedback of any task is in it"),
        (
            '{"type":"feedback","impression_id":"a","task":"My Task","value":1,"event_time_ms":1700000000000}\n',
            "in.jsonl: the name of the task 'My Task' must be",
        ),
    ],
)
def test_an_event_file_without_tasks_that_a_project_can_have_is_refused(tmp_path, init, feedback, fault):
    shown = '{"type":"impression","impression_id":"a","user_id":"u","item_id":"i","event_time_ms":1700000000000}\n'
    result = init("--events", write(tmp_path / "in.jsonl", shown + feedback), "--yes")
    assert fault in result.output
    assert result.exit_code == 1
    assert not (tmp_path / "shop").exists()


def test_an_event_file_has_no_columns_to_map(tmp_path, init):
    shown = '{"type":"impression","impression_id":"a","user_id":"u","item_id":"i","event_time_ms":1700000000000}\n'
    told = '{"type":"feedback","impression_id":"a","task":"like","value":1,"event_time_ms":1700000000000}\n'
    result = init("--events", write(tmp_path / "in.jsonl", shown + told), "--label", "x = 1", "--yes")
    assert "events in the documented form already; leave --map and --label out" in result.output


def test_a_second_init_that_comes_between_overwrites_nothing(tmp_path, init, monkeypatch):
    log = write(tmp_path / "in.csv", LOG)
    assert init("--events", log, "--yes").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "shop").rglob("*") if path.is_file()}
    monkeypatch.setattr("graft.init.write.check_free", lambda *_, **__: None)
    result = init("--events", log, "--label", "x = 1", "--yes")
    assert "appeared meanwhile and is not overwritten" in result.output
    assert result.exit_code == 1
    assert {path: path.read_bytes() for path in (tmp_path / "shop").rglob("*") if path.is_file()} == before
