"""What is wrong with an event file before it is sent."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtime.errors import InvalidInputError
from stream.replay.dry_run import check_form, check_times
from tests.stream.pair import impression

NOON_MS = 1_767_268_800_000
NOW_MS = NOON_MS + 86_400_000


def write(path, times):
    rows = [{"type": "impression", **impression(n, time)} for n, time in enumerate(times)]
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("time", "advice"),
    [
        (NOON_MS // 1000, "these are seconds, it seems: write 1767268800000"),
        (NOON_MS / 1000 + 0.25, "these are seconds, it seems: write 1767268800250"),
        (NOON_MS * 1000, "these are microseconds, it seems: write 1767268800000"),
        (NOON_MS * 1_000_000, "these are nanoseconds, it seems: write 1767268800000"),
        (float(NOON_MS), "write it as a whole number: 1767268800000"),
        ("2026-01-01T12:00:00Z", "it is a text: write 1767268800000"),
        ("2026-01-01 13:00:00+01:00", "it is a text: write 1767268800000"),
        ("2026-01-01 12:00", "it is a text: write 1767268800000"),
        ("noon", f"write a number, such as {NOW_MS}"),
        (float("nan"), f"write a number, such as {NOW_MS}"),
        (None, f"write a number, such as {NOW_MS}"),
        (True, f"write a number, such as {NOW_MS}"),
        ([NOON_MS], f"write a number, such as {NOW_MS}"),
        (10**400, f"write a number, such as {NOW_MS}"),
        (7, f"as milliseconds it is 1970-01-01: shift the file's times, such as to end now, at {NOW_MS}"),
        (NOON_MS * 3, "as milliseconds it is 2138-01-0"),
        (2**58, "as milliseconds it is after the year 9999"),
    ],
)
def test_a_file_whose_times_are_no_milliseconds_is_refused_with_line_value_and_what_to_write(tmp_path, time, advice):
    path = write(tmp_path / "events.jsonl", [NOON_MS, time, time])
    with pytest.raises(InvalidInputError) as caught:
        check_times(path, NOW_MS)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 3: event_time_ms is {json.dumps(time)[:80]}, must be milliseconds")
    assert advice in text
    assert "; 2 of the first 3 events have such times, nothing was sent" in text


def test_times_in_a_parquet_file_are_looked_at_too(tmp_path):
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist([{"type": "impression", **impression(1, 0), "event_time_ms": moment}]), path)
    with pytest.raises(InvalidInputError, match=r"line 1: .*it is a text: write 1767268800000"):
        check_times(path, NOW_MS)


@pytest.mark.parametrize("times", [[], [NOON_MS], [NOON_MS, 7], [631_152_000_000, NOW_MS + 86_400_000]])
def test_a_file_whose_times_are_mostly_right_is_sent_and_few_bad_lines_are_dead_letters_as_ever(tmp_path, times):
    check_times(write(tmp_path / "events.jsonl", times), NOW_MS)


def test_lines_that_are_no_events_or_have_no_time_say_nothing_of_the_times(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"type": "impression"}\nnoise\n\xff\n')
    check_times(path, NOW_MS)


@pytest.mark.parametrize("content", ["user,item\n1,2\n", "{}\n", '[{"type": "impression"}]\n'])
def test_a_file_without_any_event_is_refused_with_its_first_line(tmp_path, content):
    path = tmp_path / "events.csv"
    path.write_text(content)
    with pytest.raises(
        InvalidInputError, match=r"line 1: .* is no event, and none of the first .* 'graft init' writes"
    ):
        check_form(path)


@pytest.mark.parametrize("content", ["", 'noise\n{"type": "impression"}\n'])
def test_a_file_with_some_event_or_none_at_all_is_sent(tmp_path, content):
    path = tmp_path / "events.jsonl"
    path.write_text(content)
    check_form(path)


ODD = {
    "a time after the year 9999": pa.array([2**62], pa.timestamp("us")),
    "an unknown zone": pa.array([1], pa.timestamp("s", tz="Mars/Base")),
    "a name twice": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("case", ODD)
def test_values_that_python_has_not_are_named_with_their_file(tmp_path, case):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"type": ["impression"], "event_time_ms": ODD[case]}), path)
    with pytest.raises(InvalidInputError, match=r"events.parquet: cannot be read: "):
        check_form(path)


def test_a_broken_parquet_file_is_named(tmp_path):
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InvalidInputError, match=r"events.parquet: cannot be read: "):
        check_form(path)
