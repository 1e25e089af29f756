"""What a rank hears of the teacher: `python -m tests.student.learn.rank_teacher REDIS`, on each rank."""

import sys

import numpy as np

from runtime.telemetry import StopSignal
from stream.events import Example
from stream.log.examples import ExampleRecord
from student.learn.exchange import open_exchange
from student.learn.process.logits import LogitSource, UnshownSource
from student.learn.process.teacher_source import TeacherSource
from teacher_cache.cache.unshown import together
from tests.student.conftest import Toy
from tests.student.learn.train_process import TASKS, logit_cache, unshown_cache


def placed(examples: list[Example]) -> list[ExampleRecord]:
    return [ExampleRecord(0, n, example) for n, example in enumerate(examples)]


def main() -> None:
    """AssertionError on a rank that does not hear all, or goes on when another one is to stop."""
    redis_url, toy = sys.argv[1], Toy()
    cache, unshown = logit_cache(redis_url), UnshownSource(unshown_cache(redis_url))
    with open_exchange() as exchange:
        source = TeacherSource(LogitSource(cache, len(TASKS), 0), unshown, exchange, tasks=len(TASKS))
        for examples in ([toy.example(n) for n in range(9)], [toy.example(0)]):
            said = source.fetch(placed(examples), StopSignal())
            assert said is not None
            np.testing.assert_array_equal(said.logit_BT, toy.logits(examples, misses=True))
            found = unshown.fetch(examples)
            assert said.unshown is not None
            assert found is not None
            expected = together(found, len(TASKS))
            assert len(expected.features) in (1, 5)
            assert said.unshown.features == expected.features
            np.testing.assert_array_equal(said.unshown.logit_UT, expected.logit_UT)
        without_rows = source.fetch(placed([toy.example(1)]), StopSignal())
        assert without_rows is not None
        assert without_rows.unshown is not None
        assert without_rows.unshown.features == []
        stop = StopSignal()
        if exchange.rank == 1:
            stop.set()
        assert source.fetch(placed(examples), stop) is None


if __name__ == "__main__":
    main()
