"""`graft init` on MovieLens in its published form gives scores as good as the pair's that was written by hand."""

from pathlib import Path

import pytest

from benchmarks.init_movielens import measure
from lab.pairs.movielens.download import NotFetchedError, movielens_wheel

EVENTS = 3_000
WITHIN = 0.006
"""Twice what the first 20,000 events are held to: labels are that much noisier on so few."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_its_csv_files_with_and_without_a_teacher_file_the_auc_is_that_of_the_pair_by_hand(tmp_path: Path) -> None:
    try:
        movielens_wheel()
    except NotFetchedError as error:
        pytest.skip(str(error))
    found = measure(tmp_path, EVENTS, seeds=1)
    by_hand = found.pop("hand")["auc"]["like"]
    assert by_hand["student"] > by_hand["control"] + 0.02
    for made in found.values():
        for arm in ("student", "control"):
            assert made["auc"]["liked"][arm] == pytest.approx(by_hand[arm], abs=WITHIN)
