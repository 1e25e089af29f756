"""Runs the learner's whole loop over examples in memory, without Kafka and Redis."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.embedded import free_port
from runtime.telemetry import StopSignal
from stream.events import Example
from stream.log.examples import ExampleRecord
from student.learn.config import PublishConfig
from student.learn.process.publishing import Publication
from student.learn.process.skew_watch import SkewWatch
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache

NO_REDIS = f"redis://127.0.0.1:{free_port()}/0"
TASKS = ("finish", "like", "rating")


class Log:
    """Records in memory, from the given offset on; then a stop."""

    def __init__(self, examples: Sequence[Example], offsets: Mapping[int, int], stop: StopSignal) -> None:
        self._records = [ExampleRecord(0, n, example) for n, example in enumerate(examples)][offsets.get(0, 0) :]
        self._stop = stop

    def poll(self, _timeout_seconds: float) -> Sequence[ExampleRecord]:
        if not self._records:
            self._stop.set()
        records, self._records = self._records, []
        return records

    def lag(self) -> int:
        return 0

    def commit(self, offsets: Mapping[int, int]) -> None: ...

    def close(self) -> None: ...


def learn_in_memory(
    toy: Any,
    registry: Registry,
    examples: Sequence[Example],
    *,
    every_seconds: float = 1000,
    keep: int = 1000,
    skew: SkewWatch | None = None,
    **student: Any,
) -> None:
    """Go on with the registry's newest version through `examples` of the toy pair, of which offset n is the nth."""
    stop = StopSignal()
    run_training(
        toy.setup(wait_seconds=0, student=toy.student.model_copy(update=student)),
        Examples(lambda offsets: Log(examples, offsets, stop)),
        Teaching(LogitCache(NO_REDIS, "t1", TASKS, 3600), "t1"),
        Publication(registry, PublishConfig(every_seconds=every_seconds, keep=keep)),
        stop,
        skew=skew,
    )
