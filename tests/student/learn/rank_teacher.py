"""What a rank hears of the teacher: `python -m tests.student.learn.rank_teacher REDIS`, on each rank."""

import sys

import numpy as np

from runtime.telemetry import StopSignal
from stream.events import Example
from stream.log.examples import ExampleRecord
from student.learn.exchange import open_exchange
from student.learn.process.teacher_source import TeacherSource, Teaching
from tests.student.conftest import Toy
from tests.student.learn.train_process import logit_cache


def placed(examples: list[Example]) -> list[ExampleRecord]:
    return [ExampleRecord(0, n, example) for n, example in enumerate(examples)]


def main() -> None:
    """AssertionError on a rank that does not hear all, or goes on when another one is to stop."""
    redis_url, toy = sys.argv[1], Toy()
    cache = logit_cache(redis_url)
    with open_exchange() as exchange:
        source = TeacherSource(Teaching(cache, "t1"), toy.setup(wait_seconds=0.0), exchange)
        for examples in ([toy.example(n) for n in range(9)], [toy.example(0)]):
            logit_BT = source.fetch(placed(examples), StopSignal())
            assert logit_BT is not None
            np.testing.assert_array_equal(logit_BT, toy.logits(examples, misses=True))
        stop = StopSignal()
        if exchange.rank == 1:
            stop.set()
        assert source.fetch(placed(examples), stop) is None


if __name__ == "__main__":
    main()
