"""Where a backfill reads, goes on and ends."""

import time
from contextlib import closing
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import DataLossError, InvalidInputError
from runtime.redis import connect
from stream.events import Example, Impression, TeacherRequest
from stream.log.example_file import runs, write
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from stream.log.request_columns import RequestColumns
from stream.log.row_file import rows_of
from teacher_cache.backfill.backfill import Manner, backfill
from teacher_cache.backfill.histories import Bounds, Checkpoint, LoggedExamples, ShownRows, Tracked
from teacher_cache.cache.cache import LogitCache
from tests.rows import Listed, keys


class _InMemory:
    """Requests that take turns over two partitions, three to a part."""

    def __init__(self, requests):
        self._placed = [(n % 2, n // 2, request) for n, request in enumerate(requests)]

    def bounds(self):
        return Bounds({0: 0, 1: 0}, {p: sum(one[0] == p for one in self._placed) for p in (0, 1)})

    def read(self, bounds):
        wanted = (one for one in self._placed if bounds.starts[one[0]] <= one[1] < bounds.ends[one[0]])
        while some := list(islice(wanted, 3)):
            yield RequestColumns.of(some)


def _all(tracked):
    return [request for batch in tracked.batches(4) for request in batch.requests.requests()]


def _request(n):
    fields = {"impression_id": f"i{n}", "user_id": 1, "item_id": n, "event_time_ms": n}
    return TeacherRequest.model_validate(fields | {"context": {}, "spec_id": "s", "features": [n]})


class _Features:
    """Item n has the vector [n, 0, 0], every user the age 20."""

    def __init__(self):
        self.rows = 0

    def read(self, user_ids, item_ids, contexts):
        self.rows += len(user_ids)
        size = len(contexts)
        return {
            "users:age": [20] * size,
            "users:job": [None] * size,
            "items:vector": [[float(n), 0.0, 0.0] for n in item_ids],
            "items:year": [5.0] * size,
            "item_id": list(item_ids),
        }


@pytest.fixture
def cache(redis_url):
    with closing(LogitCache(redis_url, "p:g1", ("finish", "rating"), 100)) as cache:
        yield cache


def _nothing(_done, _total):
    pass


@given(
    stops=st.lists(st.integers(0, 5), max_size=4),
    rows=st.integers(0, 12),
    size=st.integers(1, 5),
)
def test_however_often_it_is_stopped_every_request_comes_once_and_in_order(stops, rows, size):
    requests = list(map(_request, range(rows)))
    history = _InMemory(requests)
    position, found = {}, []
    for stop in [*stops, rows]:
        tracked = Tracked(history, history.bounds(), position)
        batches = list(islice(tracked.batches(size), stop))
        for batch in batches:
            found += batch.requests.requests()
            assert tracked.done(batch.reached) == len(found)
        position = batches[-1].reached if batches else position
        assert tracked.total == rows
        assert all(batch.requests.size == size for batch in batches[:-1])
    assert found == requests
    assert _all(Tracked(history, history.bounds(), position)) == []


def test_a_checkpoint_comes_back_and_goes_with_its_generation(redis_url):
    bounds = Bounds({0: 3, 11: 0}, {0: 9, 11: 2**40})
    with closing(Checkpoint(redis_url, "p:g1", "b", 50)) as checkpoint, connect(redis_url) as client:
        assert checkpoint.load() is None
        checkpoint.save(bounds, {0: 5})
        assert checkpoint.load() == (bounds, {0: 5}, {})
        assert 0 < client.ttl("graft:backfills:p:g1:b") <= 50
        for other in (Checkpoint(redis_url, "p:g2", "b", 50), Checkpoint(redis_url, "p:g1", "c", 50)):
            assert other.load() is None
            other.close()
        for odd in (b"", b"{", b'{"starts": 1}', b"\xff"):
            client.set("graft:backfills:p:g1:b", odd)
            assert checkpoint.load() is None
        checkpoint.remove()
        assert client.keys("graft:backfills:*") == []


@pytest.fixture
def log(tmp_path, request_of):
    """An example log of 20 examples in two partitions; example n came at the time n."""
    for partition in (0, 1):
        records = []
        for n in range(partition, 20, 2):
            fields = request_of(n, event_time_ms=n).model_dump()
            records.append(ExampleRecord(partition, n // 2, Example(**fields, labels={"like": 1.0})))
        first = 0
        for run in runs(records):
            write(tmp_path / "log", first, run)
            first = run[-1].offset + 1
    return tmp_path / "log"


def test_an_example_log_is_scored_as_the_requests_of_its_impressions(log, request_of):
    history = LoggedExamples(ExampleLog(log), None, None)
    assert _all(Tracked(history, history.bounds(), {})) == [request_of(n, event_time_ms=n) for n in range(20)]
    assert [r.item_id for r in _all(Tracked(history, history.bounds(), {0: 10, 1: 8}))] == [17, 19]
    some = LoggedExamples(ExampleLog(log), 5, 15)
    assert [r.item_id for r in _all(Tracked(some, some.bounds(), {}))] == list(range(5, 15))
    assert Tracked(some, some.bounds(), {}).done({0: 10}) == 10


def test_a_log_that_grew_is_read_to_where_it_ended_when_the_backfill_began(log):
    history = LoggedExamples(ExampleLog(log), None, None)
    assert len(_all(Tracked(history, Bounds({}, {0: 2, 1: 1}), {}))) == 3


def test_a_log_that_lost_its_end_while_a_backfill_was_stopped_is_told(log):
    history = LoggedExamples(ExampleLog(log), None, None)
    with pytest.raises(DataLossError, match="log: partition 1 ends at offset 10 and ended at 11 when the backfill"):
        Tracked(history, Bounds({}, {0: 10, 1: 11}), {0: 2})


def test_a_file_of_rows_gets_the_features_of_now_from_where_it_goes_on(spec, tmp_path, caplog):
    path = tmp_path / "rows.parquet"
    columns = {"user_id": [1, 2, None, 3], "item_id": [7, 8, 9, 10], "hour": [3, None, 1, 2]}
    pq.write_table(pa.table(columns), path)
    assert [(one.item_id, one.context) for one in rows_of(path, ["hour"])] == [
        (7, {"hour": 3}),
        (8, {}),
        (10, {"hour": 2}),
    ]
    assert "1 rows have no valid ids or context" in caplog.text
    features = _Features()
    history = ShownRows(lambda: rows_of(path, ["hour"]), features, spec)
    found = _all(Tracked(history, history.bounds(), {0: 1}))
    assert [(one.item_id, one.features[2]) for one in found] == [(8, [8.0, 0.0, 0.0]), (10, [10.0, 0.0, 0.0])]
    assert features.rows == 2


@pytest.mark.parametrize("columns", [{"user_id": [1]}, {"user_id": [1], "item_id": [2], "like": [1]}, {}])
def test_a_file_of_other_columns_names_what_is_allowed(tmp_path, columns):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InvalidInputError, match="needed are user_id and item_id, allowed contexts hour"):
        list(rows_of(path, ["hour"]))


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_text("user_id,item_id")
    with pytest.raises(InvalidInputError, match="no Parquet file"):
        list(rows_of(tmp_path / "rows.parquet", []))


def test_impressions_within_times_only(spec):
    shown = [Impression(impression_id=f"i{n}", user_id=1, item_id=n, event_time_ms=n) for n in range(10)]
    history = ShownRows(lambda: iter(shown), _Features(), spec, 3, 7)
    assert [one.item_id for one in _all(Tracked(history, history.bounds(), {}))] == [3, 4, 5, 6]
    assert [one.item_id for one in _all(Tracked(history, history.bounds(), {0: 5}))] == [5, 6]


def test_only_what_is_missing_is_scored_and_the_hit_rates_tell(scorer, cache, request_of):
    rows = [request_of(n) for n in range(10)]
    first = backfill(Listed(rows[:4]), scorer, cache, progress=_nothing)
    assert (first.hit_rate_before, first.hit_rate_after) == (0.0, 1.0)
    cache.put(keys(cache, [1], [0]), np.full((1, 2), 99, np.float32), 2**41)
    bad = request_of(11, features=[20, "", [3e38, 3e38, 0.0], 5.0, 11])
    again = backfill(Listed([*rows, bad, rows[9]]), scorer, cache, progress=_nothing, manner=Manner(missing_only=True))
    assert (again.rows, again.read, again.left_out) == (6, 12, 1)
    assert (again.hit_rate_before, again.hit_rate_after) == pytest.approx((4 / 11, 10 / 11))
    assert cache.get(keys(cache, [1], [0])).logit_BT.tolist() == [[99.0, 99.0]]


def test_the_teacher_is_asked_for_no_more_rows_a_second_than_allowed(scorer, cache, request_of, monkeypatch):
    waits = []
    monkeypatch.setattr("runtime.telemetry.StopSignal.wait", lambda _, seconds: waits.append(seconds))
    rows = [request_of(n) for n in range(40)]
    report = backfill(Listed(rows), scorer, cache, progress=_nothing, manner=Manner(max_rows_per_second=10))
    assert len(waits) == 4  # batches of a second's rows
    assert waits == pytest.approx([1, 2, 3, 4], abs=0.9)  # nobody has waited: each begins at once
    assert report.rows == 40


def test_a_dry_run_scores_a_sample_and_tells_what_all_takes(scorer, cache, request_of, redis_url, monkeypatch):
    ticks = count()
    monkeypatch.setattr("teacher_cache.backfill.backfill._SAMPLED_ROWS", 200)
    monkeypatch.setattr(
        "teacher_cache.backfill.backfill.time",
        SimpleNamespace(monotonic=lambda: next(ticks), time_ns=time.time_ns),
    )
    rows = [request_of(n, user_id=n % 10) for n in range(2_000)]
    dry = backfill(Listed(rows), scorer, cache, progress=_nothing, batch_rows=100, manner=Manner(dry_run=True))
    with connect(redis_url) as client:
        assert client.keys("*") == []
        done = backfill(Listed(rows), scorer, cache, progress=_nothing, batch_rows=100)
        taken = sum(client.memory_usage(key) for key in client.keys("graft:logits:*"))
    assert (dry.rows, dry.hit_rate_before, dry.hit_rate_after) == (2_000, 0.0, 1.0)
    assert dry.bytes == done.bytes == pytest.approx(taken, rel=0.35)
    assert dry.teacher_seconds == done.teacher_seconds == 20  # of all rows, not of the sample; a tick a batch
