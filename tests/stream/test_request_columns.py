"""Requests as columns, and how an example log is read as such."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidInputError
from stream.events import Example, TeacherRequest
from stream.log.example_columns import TimedBatch, Wanted, merged
from stream.log.example_file import list_files, write
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from stream.log.request_columns import RequestColumns, regrouped
from stream.positions import Merge


def _request(n: int) -> TeacherRequest:
    fields = {
        "impression_id": f"i{n}",
        "user_id": n % 3,
        "item_id": f"a{n}",
        "event_time_ms": n,
        "context": {"hour": n},
    }
    return TeacherRequest.model_validate(fields | {"spec_id": "s", "features": [n, None, [0.5, 1.0], "é"]})


def _example(offset: int, time_ms: int, **changes: object) -> Example:
    fields = {"impression_id": f"i{offset}", "user_id": 1, "item_id": 2, "event_time_ms": time_ms, "context": {}}
    return Example.model_validate(fields | {"spec_id": "s", "features": [offset], "labels": {}} | changes)


@given(sizes=st.lists(st.integers(0, 5)), size=st.integers(1, 7))
def test_requests_come_back_as_they_were_however_they_are_grouped(sizes: list[int], size: int) -> None:
    placed = [(n % 2, n // 2, _request(n)) for n in range(sum(sizes))]
    rest = iter(placed)
    groups = list(regrouped([RequestColumns.of(islice(rest, some)) for some in sizes], size))
    assert [group.size for group in groups[:-1]] == [size] * (len(groups) - 1)
    found = [one for group in groups for one in zip(*group[:2], group.requests(), strict=True)]
    assert found == placed
    ends = {partition: end for group in groups for partition, end in group.ends().items()}
    assert ends == {p: sum(one[0] == p for one in placed) for p in {one[0] for one in placed}}


def test_some_requests_of_a_group_are_those_at_their_places() -> None:
    columns = RequestColumns.of((0, n, _request(n)) for n in range(5))
    assert columns.at([3, 1]).requests() == [_request(3), _request(1)]
    assert columns.at([]).size == 0
    assert columns.part(1, 3).offsets == [1, 2]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=4), st.integers(1, 4))
def test_partitions_are_merged_in_the_order_of_the_learner(times: list[list[int]], batch_rows: int) -> None:
    merge: Merge[int, tuple[int, int]] = Merge(range(len(times)))
    for partition, times_ms in enumerate(times):
        for offset, time_ms in enumerate(times_ms):
            merge.add(partition, time_ms, (partition, offset))
    wanted = list(merge.take(range(len(times))))
    read = merged([_source(partition, times_ms, batch_rows) for partition, times_ms in enumerate(times)])
    found = [one for rows in read for one in zip(*(rows[name].to_pylist() for name in ("p", "o")), strict=True)]
    assert found == wanted


def _source(partition: int, times_ms: Sequence[int], batch_rows: int) -> Iterator[TimedBatch]:
    """A partition's rows, so many in a batch."""
    latest_ms = np.maximum.accumulate(np.array(times_ms, np.int64))
    for start in range(0, len(times_ms), batch_rows):
        offsets = list(range(len(times_ms)))[start : start + batch_rows]
        rows = pa.record_batch({"p": [partition] * len(offsets), "o": offsets})
        yield TimedBatch(rows, latest_ms[start : start + batch_rows])


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    odd = [2**70, -0.0, 1e-300, 0.1 + 0.2, 'a", "b', "", None, [1.5, -2.0]]
    examples = [
        _example(n, n, user_id=user_id, item_id=f"ü{n}\U0001f3b5", context={"a": "é", "b": 1.0, "c": 1}, features=odd)
        for n, user_id in enumerate([7, "7", "é", 2**62, "null"])
    ]
    write(tmp_path, 0, [ExampleRecord(3, n, example) for n, example in enumerate(examples)])
    (columns,) = ExampleLog(tmp_path).read_requests({}, Wanted({3: 5}))
    found = columns.requests()
    assert [repr(one) for one in found] == [
        repr(TeacherRequest.model_validate(example.model_dump(exclude={"labels", "weight"}))) for example in examples
    ]
    assert (columns.partitions, columns.offsets) == ([3] * 5, list(range(5)))


def _rewrite(folder: Path, **columns: pa.Array) -> None:
    (file,) = list_files(folder)
    table = pq.read_table(file.path)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, file.path, write_page_checksum=True)


@pytest.mark.parametrize("texts", [["[1", "2]"], ["[1]", "[1], [2]"], ["[1]", "nothing"], ["[1]", None]])
def test_features_that_are_not_json_are_named_with_their_offsets(tmp_path: Path, texts: list[str | None]) -> None:
    write(tmp_path, 0, [ExampleRecord(1, n, _example(n, n)) for n in range(2)])
    _rewrite(tmp_path, features=pa.array(texts, pa.string()))
    with pytest.raises(InvalidInputError, match="partition 1, offsets 0 to 1: damaged, or no example log: "):
        list(ExampleLog(tmp_path).read_requests({}, Wanted({1: 2})))


def test_rows_that_are_not_those_of_the_files_name_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, 0, [ExampleRecord(1, n, _example(n, n)) for n in range(3)])
    _rewrite(tmp_path, offset=pa.array([0, 2, 1], pa.int64()))
    with pytest.raises(InvalidInputError, match=r"p1-0-2\.parquet .*not in the order of their offsets"):
        list(ExampleLog(tmp_path).read_requests({}, Wanted({1: 3})))
    _rewrite(tmp_path, offset=pa.array([0, 1, 4], pa.int64()))
    with pytest.raises(InvalidInputError, match=r"p1-0-2\.parquet .*ends at offset 4"):
        list(ExampleLog(tmp_path).read_requests({}, Wanted({1: 9})))
