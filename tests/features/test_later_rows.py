"""A row of a batch view that begins after an impression is never its feature."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.online.reader import LATER_ROWS, OnlineReader
from features.online.redis_layout import EntityLayout, decode_begin_ms
from runtime.redis import connect

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
JUNE_MS = round(JUNE.timestamp() * 1000)


def timestamp(time: datetime) -> bytes:
    message = Timestamp()
    message.FromDatetime(time)
    return message.SerializeToString()


@pytest.fixture
def store(own_redis, small_spec, store_small):
    """Users and items 0 to 9; the rows of items begin in June, but for item 9, whose time is not known."""
    store_small(own_redis.url, 10)
    layout = EntityLayout(small_spec.feast_project, small_spec.item_join_key, small_spec.item_id_type, [])
    with connect(own_redis.url) as client:
        for number in range(9):
            client.hset(layout.key(number), "_ts:items", timestamp(JUNE))
    return own_redis.url


def counted(view: str) -> float:
    return LATER_ROWS.labels(view)._value.get()


def test_an_impression_does_not_read_a_later_row_which_is_counted_and_logged_once(store, small_spec, caplog):
    reader = OnlineReader(small_spec, store)
    before = counted("items"), counted("users")
    times_ms = [JUNE_MS - 1, JUNE_MS, JUNE_MS - 1, 0, JUNE_MS - 1]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = reader.read_at([1, 2, 3, 4, 5], [7, 7, 8, 9, 99], [{}] * 5, times_ms)
            assert found == {"users:number": [1, 2, 3, 4, 5], "items:number": [None, 7, None, 9, None]}

    assert (counted("items") - before[0], counted("users") - before[1]) == (4, 0)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"feature view items: a row that begins at {JUNE} is missing to an impression of {JUNE - _MS}"
    ]


def test_features_of_now_are_read_whenever_they_begin(store, small_spec):
    assert OnlineReader(small_spec, store).read([1], [7], [{}]) == {"users:number": [1], "items:number": [7]}


def test_a_row_of_running_aggregates_is_never_later(store, small_spec):
    reader = OnlineReader(small_spec, store, ["items"])
    assert reader.read_at([1], [7], [{}], [0]) == {"users:number": [1], "items:number": [7]}


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_row_holds_from_the_first_whole_millisecond_of_its_time(time):
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    assert decode_begin_ms(timestamp(time)) == -(-since // _MS)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_time_are_no_fault(raw):
    begin_ms = decode_begin_ms(raw)
    assert begin_ms is None or abs(begin_ms) < 2**53


def test_feast_stores_the_time_of_its_table(applied):
    """The tables' rows begin on 2026-01-01."""
    newest_ms = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    reader = OnlineReader(applied.spec, applied.redis_url)
    for event_time_ms, is_there in ((newest_ms - 1, False), (newest_ms, True)):
        columns = reader.read_at([1], ["i1"], [{}], [event_time_ms])
        assert [columns[name][0] is not None for name in ("users:age", "items:year")] == [is_there] * 2
