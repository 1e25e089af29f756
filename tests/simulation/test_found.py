"""What the simulation has found in the product, each as a schedule of its own."""

import pytest

from stream.join.sampling import SamplingConfig
from tests.simulation.process import Fault
from tests.simulation.schedule import Limits, Schedule, Sent, message_of
from tests.simulation.seeds import faults_of_schedule, quiet
from tests.stream.pair import feedback, impression

_NO_SAMPLING = SamplingConfig()


def schedule(*sent: Sent, faults: tuple[Fault, ...] = (), sampling: SamplingConfig = _NO_SAMPLING) -> Schedule:
    limits = Limits(1_000, 5_000, 2_000, 0, 3)
    return Schedule(0, 1, ("a",), 100.0, 0.05, None, sampling, limits, sent, faults, ())


def live(count: int) -> list[Sent]:
    """An impression with feedback each second, sent when it happens."""
    shown = [message_of(impression(n, 1_700_000_001_000 + 1_000 * n), 1_000.0 + 1_000 * n) for n in range(count)]
    liked = [
        message_of(feedback(n, "like", 1, 1_700_000_001_500 + 1_000 * n), 1_500.0 + 1_000 * n) for n in range(count)
    ]
    return [one for pair in zip(shown, liked, strict=True) for one in pair]


@pytest.mark.parametrize("call", ["latest", "beginnings", "committed", "poll"])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_process_that_stands_still_in_its_restore_while_its_twin_goes_on_reports_no_loss(call, has_begun):
    """The twin commits and trims the state log, all between two questions of the restore."""
    begun = (Fault("kill", "a", "commit", 9, "after", 100.0),) if has_begun else ()
    for nth in range(1, 9):
        for when in ("before", "after"):
            frozen = Fault("freeze", "a", call, nth, when, 80_000.0, has_twin=True)
            with quiet():
                assert faults_of_schedule(schedule(*live(40), faults=(*begun, frozen))) == []


def test_feedback_that_waits_behind_other_feedback_still_waits_its_whole_time_for_the_impression():
    at_ms = 1_700_000_000_000
    shown = message_of(impression(1, at_ms), 75_000.0)
    first = message_of(feedback(1, "rating", 2, at_ms + 1), 1_000.0)
    second = message_of(feedback(1, "rating", 4, at_ms + 9), 30_000.0)
    with quiet():
        assert faults_of_schedule(schedule(first, second, shown)) == []


def test_a_negative_that_is_left_out_in_a_pause_is_committed_without_waiting_for_another_message():
    """Its example is no record: what it adds to aggregates waited, in memory, for the next message."""
    alone = message_of(impression(1, 1_700_000_000_000), 1_000.0)
    with quiet():
        assert faults_of_schedule(schedule(alone, sampling=SamplingConfig(one_negative_of=10_000))) == []
