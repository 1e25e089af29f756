"""How far event time has come."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.watermark import Watermark, WatermarkState

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy


def started(idle_ms=100.0):
    watermark = Watermark(["impressions", "feedback"], idle_ms)
    watermark.started(0)
    return watermark


def test_the_slower_input_holds_it_back():
    watermark = started()
    watermark.observe("impressions", 1_000)
    assert watermark.value_ms is None
    watermark.observe("feedback", 700)
    assert watermark.value_ms == 700
    watermark.observe("feedback", 2_000)
    assert watermark.value_ms == 1_000


def test_a_quiet_input_does_not_hold_it_back_until_it_is_heard_again():
    watermark = started()
    watermark.observe("feedback", 700)
    watermark.heard("impressions", 90)
    watermark.tick(["impressions", "feedback"], 101)
    watermark.observe("impressions", 1_000)
    assert watermark.value_ms == 1_000
    watermark.heard("feedback", 110)
    watermark.observe("impressions", 3_000)
    assert watermark.value_ms == 1_000


def test_a_silent_input_that_is_not_caught_up_is_waited_for():
    watermark = started()
    watermark.observe("impressions", 1_000)
    watermark.tick(["impressions"], 10_000)
    assert watermark.value_ms is None


def test_when_all_are_quiet_event_time_moves_on_with_the_wall_clock_from_the_newest_event():
    watermark = started()
    watermark.observe("impressions", 1_000)
    watermark.observe("feedback", 4_000)
    watermark.tick(["impressions", "feedback"], 350)
    assert watermark.value_ms == 4_000 + 250


def test_without_any_event_there_is_none_however_long_it_is_quiet():
    watermark = started()
    watermark.tick(["impressions", "feedback"], 1_000_000)
    assert watermark.value_ms is None


EVENTS = st.lists(st.tuples(st.sampled_from(["impressions", "feedback"]), st.integers(0, 10_000)), max_size=40)


@FEW
@given(EVENTS, st.integers(0, 40))
def test_it_never_goes_back_and_a_restart_anywhere_changes_nothing(events, cut):
    one, values = started(), []
    other = started()
    for at, event in enumerate(events):
        one.observe(*event)
        values.append(one.value_ms)
        if at == cut:
            saved = WatermarkState.model_validate_json(other.state().model_dump_json())
            other = started().restored(saved)
        other.observe(*event)
        assert other.value_ms == one.value_ms
    known = [value for value in values if value is not None]
    assert known == sorted(known)
