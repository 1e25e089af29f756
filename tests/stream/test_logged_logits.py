"""The logits of the example log alone: which of several records an example has, and that none is another example's."""

import json
from itertools import groupby

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInputError
from stream.events import UsedLogits, impression_mark
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog
from stream.log.logged_logits import LoggedLogit, LoggedLogits
from stream.log.logit_archive import LogitArchive
from stream.log.logit_file import FOLDER, list_logit_files
from stream.log.used_logits import UsedRecord
from tests.stream.test_example_log import record

GENERATION = "g1"


def used(place, offsets, *, learner="a", generation=GENERATION, misses=(), topic_id=None, partition=0):
    """A record at offset `place` of the topic; the logit tells place and example, so that nothing can be confused."""
    logits = [None if offset in misses else [float(offset), float(place)] for offset in offsets]
    return UsedRecord(
        partition,
        place,
        UsedLogits(
            topic_id=topic_id,
            learner=learner,
            generation=generation,
            offsets=list(offsets),
            impressions=[impression_mark(f"i{offset}") for offset in offsets],
            logits=logits,
        ),
    )


def archived(folder, *flushes, examples_id=None):
    folder.mkdir(exist_ok=True)
    archive = LogitArchive(folder, {}, examples_id)
    for records in flushes:
        archive.add(records)
        archive.flush()
    return folder


def found(folder, offsets, partition=0, **options):
    log = LoggedLogits(folder, GENERATION, **options)
    return log.of([record(partition, offset) for offset in offsets])


def logits(folder, offsets, **options):
    return [one and one.logits for one in found(folder, offsets, **options)]


def test_an_example_has_what_its_learner_used_or_that_it_had_none(tmp_path):
    archived(tmp_path, [used(0, range(3), misses=[1])])
    assert found(tmp_path, range(4)) == [
        LoggedLogit([0.0, 0.0]),
        LoggedLogit(None),
        LoggedLogit([2.0, 0.0]),
        None,
    ]


def test_what_earlier_releases_wrote_beside_the_logits_is_passed_over(tmp_path):
    """Rows that nobody was shown, in the records of the topic and in the files of the log."""
    record_of_now = used(0, [4, 5], misses=[5])
    fields = json.loads(record_of_now.used.model_dump_json()) | {"unshown": [[[[1, 0.1, "a", None], [0.25, -1.5]]], []]}
    assert UsedLogits.model_validate_json(json.dumps(fields)) == record_of_now.used
    archived(tmp_path, [record_of_now])
    (file,) = list_logit_files(tmp_path)
    table = pq.read_table(file.path)
    pq.write_table(table.append_column("unshown", pa.array(['[[[1, "a"], [0.25, -1.5]]]', None])), file.path)
    assert found(tmp_path, [4, 5]) == [LoggedLogit([4.0, 0.0]), LoggedLogit(None)]


def test_a_learner_that_learns_again_says_what_it_used_in_the_end(tmp_path):
    archived(tmp_path, [used(0, range(5))], [used(1, range(2, 5), misses=[3]), used(2, range(4, 6))])
    assert logits(tmp_path, range(6)) == [[0.0, 0.0], [1.0, 0.0], [2.0, 1.0], None, [4.0, 2.0], [5.0, 2.0]]


def test_of_several_learners_the_one_that_wrote_first_of_an_example_counts(tmp_path):
    a, b = used(0, range(3), misses=[0]), used(1, range(5), learner="b")
    again = used(2, range(1, 3), misses=[2])
    archived(tmp_path, [a, b], [again])
    assert logits(tmp_path, range(5)) == [None, [1.0, 2.0], None, [3.0, 1.0], [4.0, 1.0]]


def test_fill_misses_takes_what_another_learner_had_and_leaves_the_rest_to_the_cache(tmp_path):
    archived(tmp_path, [used(0, range(3), misses=[0, 2]), used(1, range(3), learner="b", misses=[2])])
    assert found(tmp_path, range(3), fill_misses=True) == [
        LoggedLogit([0.0, 1.0]),
        LoggedLogit([1.0, 0.0]),
        None,
    ]


def test_another_generation_is_passed_over_with_one_warning_and_never_mixed_in(tmp_path, caplog):
    archived(tmp_path, [used(0, range(4), generation="g0"), used(1, [2], learner="b")])
    assert logits(tmp_path, range(4)) == [None, None, [2.0, 1.0], None]
    assert found(tmp_path, [0]) == [None]
    warnings = [r.message for r in caplog.records if "generation g0, where g1 is wanted" in r.message]
    assert len(warnings) == 2  # two readers


def test_logits_of_another_impression_at_the_same_place_are_passed_over(tmp_path, caplog):
    archived(tmp_path, [used(0, range(2))])
    log = LoggedLogits(tmp_path, GENERATION)
    other = record(0, 0, impression_id="another")
    assert log.of([other, record(0, 1)]) == [None, LoggedLogit([1.0, 0.0])]
    assert "partition 0 offset 0 are of another impression" in caplog.text


def test_records_of_a_topic_that_was_made_anew_are_no_part_of_the_log(tmp_path):
    archived(tmp_path, [used(0, [0], topic_id="old"), used(1, [1], topic_id="new"), used(2, [2])], examples_id="new")
    assert logits(tmp_path, range(3)) == [None, [1.0, 1.0], [2.0, 2.0]]


def test_a_log_without_logits_knows_none(tmp_path):
    assert found(tmp_path, [0, 1]) == [None, None]
    assert list_logit_files(tmp_path) == []


def test_partitions_are_apart(tmp_path):
    archived(tmp_path, [used(0, [0], partition=0), used(0, [1], partition=1)])
    assert [one and one.logits for one in found(tmp_path, [0, 1], partition=1)] == [None, [1.0, 0.0]]


def test_reading_may_begin_anywhere(tmp_path):
    archived(tmp_path, *([used(n, range(10 * n, 10 * n + 10))] for n in range(5)))
    assert logits(tmp_path, [25, 49]) == [[25.0, 2.0], [49.0, 4.0]]


def test_other_tools_still_read_the_examples_as_one_table(tmp_path):
    archive = Archive(tmp_path, {})
    archive.add([record(0, n) for n in range(3)])
    archive.flush()
    archived(tmp_path, [used(0, range(3))])
    assert ds.dataset(tmp_path, partitioning="hive").to_table()["offset"].to_pylist() == [0, 1, 2]
    assert ExampleLog(tmp_path).offsets_end() == {0: 3}
    table = ds.dataset(list((tmp_path / FOLDER).glob("*.parquet"))).to_table()
    assert table["logits"].to_pylist() == [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]


def test_only_the_files_that_reach_over_an_example_are_held(tmp_path):
    archived(tmp_path, *([used(n, range(3 * n, 3 * n + 3))] for n in range(40)))
    log = LoggedLogits(tmp_path, GENERATION)
    held = []
    for offset in range(120):
        assert log.of([record(0, offset)]) == [LoggedLogit([float(offset), float(offset // 3)])]
        held.append(len(log._partitions[0]._open))
    assert max(held) <= 2


def test_a_file_that_is_gone_is_a_warning_and_its_examples_are_unknown(tmp_path, caplog):
    archived(tmp_path, [used(0, [0])], [used(1, [1])], [used(2, [2])])
    list_logit_files(tmp_path)[1].path.unlink()
    assert logits(tmp_path, range(3)) == [[0.0, 0.0], None, [2.0, 2.0]]
    assert "used logits of offsets 1 to 1 are missing between" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1 no", "truncated", "other name"])
def test_a_damaged_file_is_named(tmp_path, content):
    archived(tmp_path, [used(0, range(500))])
    (file,) = list_logit_files(tmp_path)
    if content == "truncated":
        file.path.write_bytes(file.path.read_bytes()[:-20])
    elif content == "other name":
        file.path.rename(file.path.with_name("p0-0-0-100-400.parquet"))
    else:
        file.path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"_logits/p0-0-0-"):
        found(tmp_path, range(600))


def test_a_parquet_file_with_another_name_is_refused(tmp_path):
    archived(tmp_path, [used(0, [0])])
    (file,) = list_logit_files(tmp_path)
    file.path.rename(file.path.with_name("part-0.parquet"))
    with pytest.raises(InvalidInputError, match=r"part-0\.parquet: a file of an example log's logits is named"):
        LoggedLogits(tmp_path, GENERATION)


histories = st.lists(
    st.tuples(
        st.sampled_from("ab"),  # learner
        st.sampled_from([GENERATION, GENERATION, "g0"]),
        st.integers(0, 30),  # where it goes on: it may have been killed, or begin anew
        st.integers(1, 12),  # examples
        st.sets(st.integers(0, 45)),  # misses
        st.booleans(),  # whether the archive writes a file now
    ),
    min_size=1,
    max_size=12,
)


@given(histories, st.integers(0, 20), st.booleans())
def test_any_history_of_learners_and_files_gives_each_example_its_own(tmp_path_factory, history, begin, fill_misses):
    """Against a model in memory: by example, learner and place in the topic."""
    folder = tmp_path_factory.mktemp("log")
    flushes, expected = [[]], {}
    for place, (learner, generation, first, count, misses, is_flush) in enumerate(history):
        offsets = range(first, first + count)
        flushes[-1].append(used(place, offsets, learner=learner, generation=generation, misses=misses))
        flushes += [[]] if is_flush else []
        if generation == GENERATION:
            for offset in offsets:
                learners = expected.setdefault(offset, {})
                learners[learner] = None if offset in misses else [float(offset), float(place)]
    archived(folder, *flushes)
    for offset, logit in zip(range(begin, 45), logits(folder, range(begin, 45), fill_misses=fill_misses), strict=True):
        wanted = [one for one in expected.get(offset, {}).values() if one is not None or not fill_misses]
        assert logit == next(iter(wanted), None)
    told = found(folder, range(begin, 45))
    assert [one is not None for one in told] == [offset in expected for offset in range(begin, 45)]


def test_files_hold_each_partition_s_records_without_gap(tmp_path):
    archived(tmp_path, [used(0, [5, 6]), used(1, [0, 1])], [used(2, [7])])
    names = [file.path.name for file in list_logit_files(tmp_path)]
    assert names == ["p0-0-1-0-6.parquet", "p0-2-2-7-7.parquet"]
    assert {p: len(list(group)) for p, group in groupby(list_logit_files(tmp_path), lambda f: f.partition)} == {0: 2}
