"""The simulation finds what it is there to find: every fault planted in the product's code."""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.seeds import failure_of, first_failing

MOST_SEEDS = 2000  # as many as test_schedules runs; all but five faults need fewer than 26


@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_mutant_is_caught(name, monkeypatch):
    MUTANTS[name](monkeypatch)
    seed = first_failing(range(MOST_SEEDS))
    assert seed is not None, f"{name} passed {MOST_SEEDS} schedules"


def test_a_failure_names_its_seed_and_a_schedule_with_nothing_in_it_that_it_could_do_without(monkeypatch):
    MUTANTS["an_id_forgotten_too_early"](monkeypatch)
    seed = first_failing(range(MOST_SEEDS))
    assert seed is not None
    told = failure_of(seed)
    assert told.startswith(f"seed {seed}: ")
    assert "does not hold: " in told
    assert "Fault(" not in told
    assert sum(line.startswith("  at ") for line in told.splitlines()) <= 2
