"""Many seeds: which of them fail, and what is told of the first one that does."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.simulation.schedule import Schedule, schedule_of
from tests.simulation.shrink import shrunk, told
from tests.simulation.verdict import faults_of
from tests.simulation.world import run_schedule


def faults_of_schedule(schedule: Schedule) -> list[str]:
    """What does not hold after a run of it."""
    return faults_of(run_schedule(schedule))


def failing(seeds: Iterable[int]) -> list[int]:
    """The seeds whose schedules fail."""
    return list(_failing(seeds))


def first_failing(seeds: Iterable[int]) -> int | None:
    """The first of them; None when all pass."""
    return next(_failing(seeds), None)


def failure_of(seed: int) -> str:
    """A failing seed's shrunk schedule, in lines."""
    with quiet():
        schedule = shrunk(schedule_of(seed), lambda smaller: bool(faults_of_schedule(smaller)))
        return told(schedule, faults_of_schedule(schedule))


def _failing(seeds: Iterable[int]) -> Iterator[int]:
    with quiet():
        yield from (seed for seed in seeds if faults_of_schedule(schedule_of(seed)))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines of the processes, of which a run has hundreds."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
