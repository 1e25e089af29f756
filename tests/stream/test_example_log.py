"""The example log alone: what is written comes back, in the reader's order, and a kill anywhere leaves a sound log."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import DataLossError, GraftError, InvalidInputError
from runtime.folder import remove_partial_files
from stream.events import Example
from stream.log import example_file
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog, check_topic, note_topic
from stream.log.examples import ExampleRecord
from stream.positions import ArchivedLogits, Merge

MIDNIGHT_MS = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1000)


def example(number, event_time_ms=None, **changes):
    fields = {
        "impression_id": f"i{number}",
        "user_id": number,
        "item_id": str(number),
        "event_time_ms": MIDNIGHT_MS + number * 1000 if event_time_ms is None else event_time_ms,
        "context": {"hour": number % 24},
        "spec_id": "s",
        "features": [0.1 * number, None, "a", number, [0.25, 1.0]],
        "labels": {"like": float(number % 2), "rating": None},
    }
    return Example(**{**fields, **changes})


def record(partition, offset, **changes):
    return ExampleRecord(partition, offset, example(offset, **changes))


def archived(folder, records, first=None):
    folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(folder, first or {})
    archive.add(records)
    archive.flush()
    return ExampleLog(folder)


def read(log, offsets=None):
    return [record for records in log.read(offsets or {}) for record in records]


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


ids = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=10)
examples = st.builds(
    Example,
    impression_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    user_id=ids,
    item_id=ids,
    event_time_ms=st.integers(0, 2**53 - 1),
    context=st.dictionaries(texts, st.integers() | floats | texts, max_size=3),
    spec_id=texts,
    features=st.lists(st.none() | st.integers() | floats | texts | st.lists(floats, max_size=3), max_size=5),
    labels=st.dictionaries(st.sampled_from(["like", "rating", "finish"]), st.none() | floats),
)


logits = st.builds(
    ArchivedLogits, texts, st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(examples, st.none() | logits), min_size=1, max_size=5))
def test_every_example_comes_back_as_it_was_to_the_last_bit(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("log")
    records = [ExampleRecord(0, 2 * i, *of_example) for i, of_example in enumerate(written)]
    found = []
    for file in example_file.list_files(folder := archived(folder, records).folder):
        found += [r for batch in example_file.read(file, 0) for r in batch]
    found.sort(key=lambda r: r.offset)
    assert found == records
    assert repr(found) == repr(records)  # 1 is not 1.0, 0.0 is not -0.0
    assert [r.example.model_dump_json() for r in found] == [r.example.model_dump_json() for r in records]


def test_files_are_named_by_day_partition_and_offsets(tmp_path):
    records = [record(0, 3, event_time_ms=MIDNIGHT_MS - 1), record(0, 7, event_time_ms=MIDNIGHT_MS), record(2, 5)]
    archived(tmp_path, records)
    assert names(tmp_path) == [
        "day=2026-11-23/p0-0-3.parquet",
        "day=2026-11-24/p0-4-7.parquet",
        "day=2026-11-24/p2-0-5.parquet",
    ]
    assert ExampleLog(tmp_path).offsets_end() == {0: 8, 2: 6}


def test_an_event_time_after_the_year_9999_does_not_stop_the_log(tmp_path):
    log = archived(tmp_path, [record(0, 0, event_time_ms=2**53 - 1)])
    assert names(tmp_path) == ["day=9999-12-31/p0-0-0.parquet"]
    assert read(log)[0].example.event_time_ms == 2**53 - 1


def test_other_tools_read_the_log_as_a_table_with_a_column_per_label(tmp_path):
    archived(tmp_path, [record(0, n) for n in range(4)])
    archived(tmp_path, [record(0, 4, event_time_ms=MIDNIGHT_MS - 1)], {0: 4})
    table = ds.dataset(tmp_path, partitioning="hive").to_table().sort_by("offset")
    assert table["label_like"].to_pylist() == [0, 1, 0, 1, 0]
    assert table["label_rating"].null_count == 5
    assert table["day"].to_pylist() == ["2026-11-24"] * 4 + ["2026-11-23"]
    assert json.loads(table["features"][3].as_py()) == example(3).features


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(0, 40), max_size=12), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 8), max_size=5),
    start=st.dictionaries(st.integers(0, 2), st.integers(0, 12)),
)
def test_the_log_s_order_is_that_of_one_merge_however_it_was_cut_into_files(tmp_path_factory, times, cuts, start):
    folder = tmp_path_factory.mktemp("log")
    at = [[ExampleRecord(p, o, example(o, MIDNIGHT_MS - 20_000 + t * 1000)) for o, t in enumerate(part)]
          for p, part in enumerate(times)]  # fmt: skip
    archive, left = Archive(folder, {}), [list(part) for part in at]
    for i, cut in enumerate([*cuts, 99, 99, 99]):
        part = left[i % len(left)]
        archive.add([part.pop(0) for _ in range(min(cut, len(part)))])
        archive.flush()
    for part in left:
        archive.add(part)
    archive.flush()
    merge = Merge(range(len(at)))
    for p, part in enumerate(at):
        for r in part[start.get(p, 0) :]:
            merge.add(p, r.example.event_time_ms, r)
    assert read(ExampleLog(folder), start) == list(merge.take(range(len(at))))


def test_reading_starts_exactly_at_the_offsets_also_within_a_file_and_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(example_file, "_BATCH_ROWS", 3)
    records = [record(0, offset) for offset in range(10)]
    log = archived(tmp_path, records)
    for offset in range(12):
        assert read(log, {0: offset}) == records[offset:]


# --- kills


class KilledError(BaseException):
    """Takes the place of kill -9: nothing after it is executed."""


DAYS = (0, -1, 0, 0, -1, 1, 1)
SCATTERED = [record(o % 2, o // 2, event_time_ms=MIDNIGHT_MS + DAYS[o % 7] * 86_400_000 + o) for o in range(14)]


def steps_of(monkeypatch, folder, kill_at):
    """Archive SCATTERED on top of what `folder` has, and die before file system step number `kill_at`."""
    count = 0

    def step(original):
        def counted(*arguments, **settings):
            nonlocal count
            if count == kill_at:
                raise KilledError
            count += 1
            return original(*arguments, **settings)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", step(Path.replace))
        patch.setattr(Path, "mkdir", step(Path.mkdir))
        patch.setattr(os, "fsync", step(lambda _handle: None))  # the disk is not what dies here
        patch.setattr(example_file.pq, "write_table", step(example_file.pq.write_table))
        ends = ExampleLog(folder).offsets_end()
        archive = Archive(folder, ends)
        archive.add([r for r in SCATTERED if r.offset >= ends.get(r.partition, 0)])
        try:
            archive.flush()
        except KilledError:
            return None
    return count


def test_a_kill_at_any_step_of_a_flush_over_several_days_loses_and_doubles_nothing(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    steps = steps_of(monkeypatch, tmp_path / "whole", -1)
    whole = read(ExampleLog(tmp_path / "whole"))
    assert len(whole) == len(SCATTERED)
    ends = set()
    for kill_at in range(steps):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        assert steps_of(monkeypatch, folder, kill_at) is None
        log = ExampleLog(folder)
        end = log.offsets_end()
        ends.add(tuple(sorted(end.items())))
        left = [r for r in SCATTERED if r.offset < end.get(r.partition, 0)]
        assert sorted(read(log)[i][:2] for i in range(len(left))) == sorted(r[:2] for r in left)
        remove_partial_files(folder, example_file.DAYS)
        assert all(name.endswith(".parquet") for name in names(folder))
        assert steps_of(monkeypatch, folder, -1) is not None
        assert read(ExampleLog(folder)) == whole
    assert len(ends) > 8, "the kills did not come between the files: the test proves nothing"


def test_a_full_disk_ends_the_archive_with_one_line_and_the_next_one_goes_on_without_a_gap(disk):
    log = disk.folder / "log"
    records = [record(0, offset) for offset in range(40)]
    archive = Archive(log, {})
    archive.add(records[:20])
    archive.flush()
    disk.fill()
    archive.add(records[20:])
    with pytest.raises(GraftError) as caught:
        archive.flush()
    (day,) = log.glob(example_file.DAYS)
    assert str(caught.value) == (
        f"{day}: cannot be written: No space left on device; make room on its disk, then start again"
    )
    disk.make_room()
    following = Archive(log, ExampleLog(log).offsets_end())
    following.add(records[20:])
    following.flush()
    assert read(ExampleLog(log)) == records


def test_a_reader_beside_the_writer_never_sees_a_gap(tmp_path):
    done = threading.Event()
    archive = Archive(tmp_path, {})

    def write():
        for number in range(60):
            day = (5, 3, 4, 1, 2)[number % 5]
            archive.add([record(0, number, event_time_ms=MIDNIGHT_MS + day * 86_400_000)])
            archive.flush()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    ends = [0]
    while not done.is_set():
        ends.append(ExampleLog(tmp_path).offsets_end().get(0, 0))
    writer.join()
    assert ends == sorted(ends)
    assert len(read(ExampleLog(tmp_path))) == 60


# --- errors


@pytest.fixture
def three_files(tmp_path):
    for start in (0, 10, 20):
        archived(tmp_path, [record(1, offset) for offset in range(start, start + 10)], {1: start})
    day = tmp_path / "day=2026-11-24"
    return tmp_path, [day / f"p1-{start}-{start + 9}.parquet" for start in (0, 10, 20)]


def test_a_missing_file_is_an_error_with_its_offsets(three_files):
    folder, files = three_files
    files[1].unlink()
    with pytest.raises(
        DataLossError, match=r"offsets 10 to 19 are missing between .*p1-0-9.parquet .*p1-20-29.parquet"
    ):
        read(ExampleLog(folder))


def test_overlapping_files_are_an_error_with_both_names(three_files):
    folder, files = three_files
    files[1].rename(files[1].with_name("p1-8-19.parquet"))
    with pytest.raises(InvalidInputError, match=r"p1-8-19.parquet .* overlaps .*p1-0-9.parquet"):
        ExampleLog(folder).offsets_end()


def test_offsets_before_the_log_s_beginning_are_an_error_and_absent_ones_begin_there(three_files, caplog):
    folder, files = three_files
    files[0].unlink()
    with pytest.raises(DataLossError, match=r"partition 1 is to be read from offset 3 on.*p1-10-19.parquet"):
        read(ExampleLog(folder), {1: 3})
    assert read(ExampleLog(folder))[0].offset == 10
    assert "begins after the topic did: partition=1 offset=10" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_named_with_its_offsets(three_files, damage):
    folder, files = three_files
    raw = files[1].read_bytes()
    middle = raw.index(b"PAR1") + 60
    broken = {
        "cut": raw[:-20],
        "flipped": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
        "empty": b"",
        "other": files[2].read_bytes(),
    }
    files[1].write_bytes(broken[damage])
    with pytest.raises(InvalidInputError, match=r"p1-10-19.parquet \(partition 1, offsets 10 to 19\): "):
        read(ExampleLog(folder))


def test_an_example_of_another_spec_is_named_with_its_file_and_offset(tmp_path):
    archived(tmp_path, [record(0, 0), record(0, 1), record(0, 2, spec_id="other")])
    assert len(read(ExampleLog(tmp_path))) == 3
    with pytest.raises(
        InvalidInputError, match=r"p0-0-2.parquet .*offset 2 was logged with feature spec other, must be s"
    ):
        read(ExampleLog(tmp_path, "s"))


def test_a_foreign_parquet_file_and_a_missing_folder_are_errors(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no such folder; 'graft stream archive .*nowhere' makes it"):
        read(ExampleLog(tmp_path / "nowhere"))
    (tmp_path / "day=2026-11-24").mkdir()
    (tmp_path / "day=2026-11-24" / "export.parquet").touch()
    with pytest.raises(InvalidInputError, match=r"export.parquet: .* is named p<partition>-<first>-<last>.parquet"):
        read(ExampleLog(tmp_path))


def test_the_log_is_read_without_torch_and_feast():
    code = "import sys, stream.log.example_log; print([m for m in ('torch', 'feast', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_log_of_a_topic_that_was_made_anew_is_refused_and_one_without_an_id_fits_any(tmp_path):
    check_topic(tmp_path, "a")
    note_topic(tmp_path, "a")
    check_topic(tmp_path, "a")
    check_topic(tmp_path, None)
    with pytest.raises(DataLossError, match=r"a topic with the id a, .* now has b: .*'graft stream archive NEW_LOG'"):
        check_topic(tmp_path, "b")
    assert ExampleLog(tmp_path).offsets_end() == {}


def test_weights_come_back_and_a_log_without_sampling_has_no_column_for_them(tmp_path):
    plain = [record(0, n) for n in range(3)]
    sampled = [record(0, n, weight=1 + n % 2 * 4) for n in range(3, 6)]
    assert read(archived(tmp_path / "plain", plain)) == plain
    log = archived(tmp_path / "sampled", sampled, {0: 3})
    assert read(log) == sampled
    assert [found.example.weight for found in read(log)] == [5, 1, 5]
    columns = [set(ds.dataset(tmp_path / name, format="parquet").schema.names) for name in ("plain", "sampled")]
    assert columns[1] - columns[0] == {"weight"}
