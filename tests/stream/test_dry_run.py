"""What the stream would make of an event file, foreseen without it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.join.validation import Validator
from stream.replay.dry_run import Expected, Fault, expect
from tests.stream.pair import SPEC, TASKS, feedback, impression, stream_config

NOON_MS = 1_767_268_800_000


def expected(path, now_ms=NOON_MS + 3_600_000):
    return expect(path, Validator(SPEC, TASKS), TASKS, stream_config("x"), now_ms)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(number, at_ms=NOON_MS, **changes):
    return {"type": "impression", **impression(number, at_ms, **changes)}


def told(number, task="like", value=1, at_ms=NOON_MS):
    return {"type": "feedback", **feedback(number, task, value, at_ms)}


def test_a_file_that_fits_has_a_range_of_times_and_no_dead_letter(tmp_path):
    path = write(
        tmp_path / "e.jsonl", [shown(1), told(1), shown(2, NOON_MS + 5_000), told(2, "rating", 3.5, NOON_MS + 65_000)]
    )
    assert expected(path) == Expected(NOON_MS, NOON_MS + 65_000, {}, None, 0, 0)


FAULTS = {
    "an integer id for a key of strings": (shown(1, item_id=5), "invalid", "item_id: Input should be a valid string"),
    "a string id for a key of integers": (shown(1, user_id="u"), "invalid", "user_id: Input should be a valid integer"),
    "an unknown context": (shown(1, context={"hours": 3}), "invalid", "context.hours"),
    "context of another type": (shown(1, context={"hour": "3"}), "invalid", "context.hour"),
    "an unknown task": (told(1, "lke"), "invalid", "'lke'"),
    "a label of 2": (told(1, "like", 2), "invalid", "of the binary task like must be 0 or 1, got 2"),
    "no event": ({"user": 1}, "invalid", ""),
    "the future": (shown(1, NOON_MS + 90_000_000), "ahead", "further ahead of the clock than stream.max_ahead_seconds"),
    "no impression": (told(9), "no_impression", "the file has no impression i9"),
    "before its impression": (
        told(0, at_ms=NOON_MS - 1),
        "outside_window",
        "must come 0 to 20000 ms after its impression, got -1",
    ),
    "after its window": (told(0, at_ms=NOON_MS + 20_001), "outside_window", "got 20001 ms"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_dead_letter_is_foreseen_with_its_line_code_and_reason(tmp_path, case):
    row, code, reason = FAULTS[case]
    found = expected(write(tmp_path / "e.jsonl", [shown(0), row]))
    assert found.dead_letters == {code: 1}
    assert found.first_fault == Fault(2, code, found.first_fault.reason)
    assert reason in found.first_fault.reason


def test_float_ids_of_pandas_are_foreseen(tmp_path):
    path = tmp_path / "e.parquet"
    rows = pa.Table.from_pylist([shown(number) for number in range(3)])
    users = rows.schema.get_field_index("user_id")
    pq.write_table(rows.set_column(users, "user_id", rows["user_id"].cast(pa.float64())), path)
    found = expected(path)
    assert found.dead_letters == {"invalid": 3}
    assert found.first_fault.reason.startswith("user_id: Input should be a valid integer")


def test_feedback_before_its_impressions_line_is_no_fault_and_the_earliest_line_is_told(tmp_path):
    found = expected(write(tmp_path / "e.jsonl", [told(1), told(8), {"noise": 1}, shown(1)]))
    assert found.dead_letters == {"invalid": 1, "no_impression": 1}
    assert found.first_fault.line == 2


def test_duplicates_and_events_that_go_back_in_time_are_counted(tmp_path):
    rows = [shown(1, NOON_MS + 9), shown(1, NOON_MS + 9), shown(2, NOON_MS)]
    assert expected(write(tmp_path / "e.jsonl", rows)) == Expected(NOON_MS, NOON_MS + 9, {}, None, 1, 1)


def test_an_empty_file_has_no_times(tmp_path):
    assert expected(write(tmp_path / "e.jsonl", [])) == Expected(None, None, {}, None, 0, 0)
