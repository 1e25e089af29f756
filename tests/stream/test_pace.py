"""When the events of a replay are due."""

import time

import pytest

from stream.replay.event_file import FileEvent
from stream.replay.replay import EventTime, Rate, at_once, due_batches

SECOND_MS, DAY_MS = 1_000, 86_400_000
NOON_MS = 1_767_268_800_000


def event(time_ms, key=b"i"):
    return FileEvent("impression", key, b"{}", 1, time_ms)


def feedback(key):
    return FileEvent("feedback", key, b"{}", 1, NOON_MS)


def dues(pace, times_ms):
    return [pace(event(at)) for at in times_ms]


def test_without_a_pace_every_event_is_due_now():
    assert dues(at_once, [NOON_MS, NOON_MS + DAY_MS]) == [0, 0]


def test_a_rate_spaces_events_evenly():
    assert dues(Rate(4), [None, 5, 5]) == [0, 0.25, 0.5]


def test_event_time_at_speed_one_has_the_pauses_that_the_events_had_and_at_ten_a_tenth():
    times = [NOON_MS, NOON_MS + SECOND_MS, NOON_MS + 4 * SECOND_MS]
    assert dues(EventTime(1), times) == [0, 1, 4]
    assert dues(EventTime(10), times) == [0, 0.1, 0.4]


def test_an_event_before_an_earlier_one_or_without_a_time_waits_for_nothing_more():
    times = [NOON_MS, NOON_MS + 5 * SECOND_MS, NOON_MS + SECOND_MS, None, NOON_MS + 6 * SECOND_MS]
    assert dues(EventTime(1), times) == [0, 5, 5, 5, 6]


@pytest.mark.parametrize("odd_ms", [0, NOON_MS - 400 * DAY_MS])
def test_one_wrong_time_costs_a_day_at_most(odd_ms):
    day = 86_400
    assert dues(EventTime(1), [odd_ms, NOON_MS, NOON_MS + SECOND_MS]) == [0, day, day + 1]
    assert dues(EventTime(1), [NOON_MS, odd_ms, NOON_MS, NOON_MS + SECOND_MS]) == [0, 0, day, day + 1]


def test_an_event_of_the_future_does_not_hold_the_others_up():
    ahead_ms = time.time_ns() // 1_000_000 + DAY_MS
    assert dues(EventTime(1), [NOON_MS, ahead_ms, NOON_MS + SECOND_MS]) == [0, 0, 1]


def test_events_that_are_due_within_a_tenth_of_a_second_are_one_batch_of_a_bounded_size():
    times = [NOON_MS + ms for ms in (0, 50, 99, 100, 150, 1_000)]
    found = [(due, len(batch)) for due, batch in due_batches(map(event, times), EventTime(1), 500)]
    assert found == [(0, 3), (0.1, 2), (1, 1)]
    keyed = [event(at, f"i{i}".encode()) for i, at in enumerate(times)]
    assert [len(batch) for _, batch in due_batches(iter(keyed), at_once, 4)] == [4, 2]
    assert list(due_batches(iter([]), at_once, 4)) == []


def test_an_impression_is_sent_with_the_feedback_that_follows_it_at_once():
    events = [event(NOON_MS, key) for key in (b"a", b"b", b"c", b"d")]
    events[2:2] = [feedback(b"b"), feedback(b"b")]
    events[5:5] = [feedback(b"c")]
    batches = [batch for _, batch in due_batches(iter(events), at_once, 2)]
    assert [[e.key for e in batch] for batch in batches] == [[b"a", b"b", b"b", b"b"], [b"c", b"c"], [b"d"]]
    endless = [feedback(b"a")] * 9
    assert [len(batch) for _, batch in due_batches(iter(endless), at_once, 2)] == [4, 4, 1]


def test_the_same_impression_again_and_again_makes_no_larger_batch():
    assert [len(batch) for _, batch in due_batches(iter([event(NOON_MS)] * 5), at_once, 2)] == [2, 2, 1]
