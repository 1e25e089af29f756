"""2,000 seeds of the stream process in a simulated world: nothing lost, doubled, mislabelled or skipped."""

import pytest

from tests.simulation.seeds import failing, failure_of

SCHEDULES = 2_000
_AT_ONCE = 50


@pytest.mark.parametrize("first", range(0, SCHEDULES, _AT_ONCE))
def test_after_every_schedule_each_message_has_had_exactly_one_outcome(first):
    failed = failing(range(first, first + _AT_ONCE))
    assert not failed, "\n".join(failure_of(seed) for seed in failed[:2])
