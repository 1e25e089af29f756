"""5,000 seeds of the stream process in a simulated world: nothing lost, doubled, mislabelled or skipped.

`make test` takes the first 150: of the faults that are planted, the first 25 catch all that most schedules catch.
"""

import pytest

from tests.simulation.schedule import schedule_of
from tests.simulation.seeds import failing, failure_of, quiet
from tests.simulation.world import run_schedule

QUICK, ALL = 150, 5_000
_AT_ONCE = 50

FIRST = [
    *range(0, QUICK, _AT_ONCE),
    *(pytest.param(first, marks=pytest.mark.slow) for first in range(QUICK, ALL, _AT_ONCE)),
]


@pytest.mark.parametrize("first", FIRST)
def test_after_every_schedule_each_message_has_had_exactly_one_outcome(first):
    failed = failing(range(first, first + _AT_ONCE))
    assert not failed, "\n".join(failure_of(seed) for seed in failed[:2])


def test_a_seed_gives_the_same_run_each_time():
    """Else a failure could not be looked at again."""
    with quiet():
        first, second = (run_schedule(schedule_of(5)) for _ in range(2))
    assert first.timeline.now_ms == second.timeline.now_ms
    assert written(first) == written(second)


def written(world):
    return {at: [(r.key, r.value, r.appended_ms) for r in log.records] for at, log in world.broker.logs.items()}
