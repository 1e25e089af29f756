"""Tables of one file or many: the same rows however they are cut, and bounded memory."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.init import tables
from graft.init.look import read
from graft.init.roles import Given
from graft.init.tables import Table


def rows_of(table: Table) -> list[dict]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


def test_many_small_files_are_read_as_few_batches_in_their_order(tmp_path):
    for day in range(40):
        rows = {"user": [f"u{day}"] * 3, "item": ["i1"] * 3, "ts": [1_700_000_000 + day] * 3}
        if day >= 30:
            rows["device"] = ["tv"] * 3  # columns that came later
        schema = pa.table(rows).schema.with_metadata({"pandas": str(day)})
        pq.write_table(pa.table(rows).cast(schema), tmp_path / f"part-{day:03d}.parquet")
    batches = list(Table(str(tmp_path)).batches())
    assert [len(batch) for batch in batches] == [90, 30]
    users = [user for batch in batches for user in batch.column("user").to_pylist()]
    assert users == [f"u{day}" for day in range(40) for _ in range(3)]


@pytest.mark.parametrize("kept_bytes", [1 << 20, 100])
def test_another_reading_has_the_same_rows_and_left_out_lines(tmp_path, monkeypatch, kept_bytes):
    monkeypatch.setattr(tables, "_KEPT_BYTES", kept_bytes)
    for day in range(3):
        (tmp_path / f"day-{day}.csv").write_text(f"user,item\nu{day},i1\nu{day},i2,\nu{day},i3\n")
    table = Table(str(tmp_path))
    first = rows_of(table)
    assert first == [{"user": f"u{day}", "item": item} for day in range(3) for item in ("i1", "i3")]
    assert rows_of(table) == first
    assert sum(table.left_out.values()) == 3


def test_the_files_of_a_small_table_are_read_once(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "a.csv").write_text("user,item\nu1,i1\n")
    table = Table(str(folder))
    first = rows_of(table)
    shutil.rmtree(folder)
    assert rows_of(table) == first == [{"user": "u1", "item": "i1"}]


def test_a_reading_that_was_not_ended_keeps_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\nu1,i1\n")
    (tmp_path / "b.csv").write_text("user,item,device\nu2,i1,tv\n")
    table = Table(str(tmp_path))
    next(iter(table.batches()))
    assert [row["user"] for row in rows_of(table)] == ["u1", "u2"]


def test_a_file_a_day_looks_as_one_file_with_the_same_rows(tmp_path):
    parts = [
        pa.table(
            {
                "user_id": [f"u{row % 7}" for row in range(5)],
                "item_id": [row + day for row in range(5)],
                "timestamp": [1_700_000_000 + 86_400 * day + row for row in range(5)],
                "clicked": [(row + day) % 2 for row in range(5)],
            }
        )
        for day in range(60)
    ]
    (tmp_path / "days").mkdir()
    for day, part in enumerate(parts):
        pq.write_table(part, tmp_path / "days" / f"part-{day:03d}.parquet")
    pq.write_table(pa.concat_tables(parts), tmp_path / "one.parquet")
    days, one = (read(str(tmp_path / name), Given({}, ())) for name in ("days", "one.parquet"))
    assert days.log.rows.equals(one.log.rows)
    assert days.figures.model_copy(update={"bytes": 0}) == one.figures.model_copy(update={"bytes": 0})
    assert days.figures.rows == 300
