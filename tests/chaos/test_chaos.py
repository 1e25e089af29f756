"""The run of `make chaos`: whatever is lost, doubled, wrong or stuck fails it."""

from pathlib import Path

import pytest

from tests.chaos.run import run_chaos
from tests.chaos.troubles import KILLS
from tests.chaos.verdict import report


@pytest.mark.slow
@pytest.mark.timeout(400)  # 70 s on two quiet cores
def test_kills_and_outages_lose_double_and_change_nothing(tmp_path: Path) -> None:
    lines = run_chaos(1, tmp_path, None, print)
    assert not any(line.faults for line in lines), "\n".join(report(lines))
    assert {line.name: line.value for line in lines}["kill -9"] == str(KILLS)
