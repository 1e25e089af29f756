"""The runs of `make chaos` and `make fuzz`, small: whatever is lost, doubled, wrong or stuck fails them."""

from pathlib import Path

import pytest

from tests.chaos.fuzz import run_fuzz
from tests.chaos.plan import Options
from tests.chaos.run import run_chaos
from tests.chaos.verdict import Line, told


def assert_holds(lines: list[Line]) -> None:
    assert not any(line.faults for line in lines), "\n".join(told(lines))


@pytest.mark.slow
@pytest.mark.timeout(400)  # 40 s on two quiet cores
def test_kills_and_outages_lose_double_and_change_nothing(tmp_path: Path) -> None:
    lines = run_chaos(Options(seconds=12, seed=1, kills=6), tmp_path, None, print, with_features=False)
    assert_holds(lines)
    assert {line.name: line.value for line in lines}["kill -9"] == "6"


@pytest.mark.slow
@pytest.mark.timeout(300)  # 20 s on two quiet cores
def test_every_fuzzed_message_has_one_outcome(tmp_path: Path) -> None:
    assert_holds(run_fuzz(6_000, 1, tmp_path, None, print))
