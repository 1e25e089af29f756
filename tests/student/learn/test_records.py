"""Offsets after records that were learnt."""

import pytest

from stream.log.examples import ExampleRecord
from stream.positions import OffsetError
from student.learn.process.train import offsets_after


def test_offsets_point_behind_the_last_example_of_each_partition() -> None:
    batch = [ExampleRecord(0, 4, None), ExampleRecord(2, 9, None), ExampleRecord(0, 6, None)]  # type: ignore[arg-type]
    assert offsets_after({0: 4, 1: 8}, batch) == {0: 7, 1: 8, 2: 10}


def test_an_example_that_was_learnt_is_not_learnt_again() -> None:
    batch = [ExampleRecord(0, 4, None), ExampleRecord(0, 4, None)]  # type: ignore[arg-type]
    with pytest.raises(OffsetError, match="examples topic, partition 0: offset 4 is not above the last one, 4"):
        offsets_after({0: 4}, batch)
    with pytest.raises(OffsetError, match="offset 4 is not above the last one, 8"):
        offsets_after({0: 9}, batch)
