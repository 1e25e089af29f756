"""How far event time has come."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.join.partition import Watermark, WatermarkState

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy
INPUTS = ["impressions", "feedback"]


def test_the_slower_input_holds_it_back():
    watermark = Watermark(INPUTS)
    watermark.observe("impressions", 1_000)
    assert watermark.value_ms is None
    watermark.observe("feedback", 700)
    assert watermark.value_ms == 700
    watermark.observe("feedback", 2_000)
    assert watermark.value_ms == 1_000


def test_no_event_of_one_input_moves_it_past_the_other_input():
    watermark = Watermark(INPUTS)
    watermark.observe("impressions", 1_000)
    watermark.observe("feedback", 900)
    watermark.observe("impressions", 2**52)
    assert watermark.value_ms == 900


EVENTS = st.lists(st.tuples(st.sampled_from(INPUTS), st.integers(0, 10_000)), max_size=40)


@FEW
@given(EVENTS, st.integers(0, 40))
def test_it_never_goes_back_and_goes_on_after_a_restart_as_without_one(events, restart_at):
    whole, restarted = Watermark(INPUTS), Watermark(INPUTS)
    seen = []
    for number, event in enumerate(events):
        if number == restart_at:
            state = WatermarkState.model_validate_json(restarted.state().model_dump_json())
            restarted = Watermark(INPUTS).restored(state)
        for watermark in (whole, restarted):
            watermark.observe(*event)
        seen.append(whole.value_ms)
        assert restarted.value_ms == whole.value_ms
    values = [value for value in seen if value is not None]
    assert values == sorted(values)
