"""Where a micro-batch ends depends on the log alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.examples import ExampleRecord
from stream.positions import OffsetError
from student.learn.micro_batch import MicroBatches, offsets_after


class _Clock:
    """An example of which only the event time matters here."""

    def __init__(self, event_time_ms: int) -> None:
        self.event_time_ms = event_time_ms


def records(times_ms: list[int]) -> list[Any]:
    return [ExampleRecord(0, offset, _Clock(time)) for offset, time in enumerate(times_ms)]  # type: ignore[arg-type]


def cut(batches: MicroBatches, log: list[Any]) -> list[list[int]]:
    return [[record.offset for record in batch] for batch in batches.add(log)]


def test_a_batch_ends_when_it_is_full() -> None:
    assert cut(MicroBatches(3, 60), records([0] * 8)) == [[0, 1, 2], [3, 4, 5]]


def test_a_batch_ends_at_an_example_much_later_than_its_first() -> None:
    log = records([0, 30_000, 59_999, 60_000, 60_001, 120_000])
    assert cut(MicroBatches(100, 60), log) == [[0, 1, 2], [3, 4]]


def test_a_batch_of_one_is_closed_at_once() -> None:
    assert cut(MicroBatches(1, 60), records([0, 10**9])) == [[0], [1]]


@given(st.lists(st.integers(0, 200_000)), st.lists(st.integers(0, 60)), st.integers(1, 9))
def test_polls_and_restarts_do_not_move_the_ends(times_ms: list[int], polls: list[int], size: int) -> None:
    log = records(times_ms)
    whole = cut(MicroBatches(size, 20), log)
    pieces, at, batches = [], 0, MicroBatches(size, 20)
    for end in [*sorted(polls), len(log)]:
        pieces += cut(batches, log[at:end])
        at = max(at, end)
    assert pieces == whole
    for i, batch in enumerate(whole):
        assert cut(MicroBatches(size, 20), log[batch[0] :]) == whole[i:]


def test_offsets_point_behind_the_last_example_of_each_partition() -> None:
    batch = [ExampleRecord(0, 4, None), ExampleRecord(2, 9, None), ExampleRecord(0, 6, None)]  # type: ignore[arg-type]
    assert offsets_after({0: 4, 1: 8}, batch) == {0: 7, 1: 8, 2: 10}


def test_an_example_that_was_learnt_is_not_learnt_again() -> None:
    batch = [ExampleRecord(0, 4, None), ExampleRecord(0, 4, None)]  # type: ignore[arg-type]
    with pytest.raises(OffsetError, match="examples topic, partition 0: offset 4 is not above the last one, 4"):
        offsets_after({0: 4}, batch)
    with pytest.raises(OffsetError, match="offset 4 is not above the last one, 8"):
        offsets_after({0: 9}, batch)
