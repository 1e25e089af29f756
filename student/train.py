"""The learner process: examples from Kafka, logits from Redis, versions into the registry."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from prometheus_client import Gauge, Histogram

from graft.errors import InvalidInputError
from graft.telemetry import StopSignal
from student.config import PublishConfig
from student.learner import Learner
from student.logits import LogitSource, UnshownSource
from student.manifest import Draft
from student.micro_batch import MicroBatches, Record, offsets_after
from student.progress import Progress
from student.setup import LearnerSetup
from student.versions import Registry
from teacher_cache.cache import LogitCache
from teacher_cache.unshown import UnshownCache

EXAMPLES = Gauge("graft_student_learned_examples", "Examples learnt since the first version")
LAG = Gauge("graft_student_lag_records", "Records of the examples topic that are not learnt yet")
VERSION = Gauge("graft_student_version", "Number of the last published version")
STEP = Histogram(
    "graft_student_step_seconds",
    "Predicting, judging and learning one micro-batch in both arms",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2  # how soon a quiet process sees a stop or a version that is due
_LOG_SECONDS = 5.0


class ExampleSource(Protocol):
    """The examples in their order, from given offsets on: `stream.examples.ExampleReader`, or a log read otherwise."""

    def poll(self, timeout_seconds: float) -> Sequence[Record]:
        """The next records; none after `timeout_seconds`."""
        ...

    def lag(self) -> int:
        """Records not yet polled."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the outside how far this learner has come."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def run_training(  # noqa: PLR0913 - by keyword: one for each part that a process brings
    *,
    setup: LearnerSetup,
    publish: PublishConfig,
    teacher_version: str | None,
    registry: Registry,
    cache: LogitCache,
    unshown: UnshownCache | None = None,
    open_source: Callable[[Mapping[int, int]], ExampleSource],
    stop: StopSignal,
) -> None:
    """Learn from the newest version on, or from the first example on, until `stop`; then publish what is learnt.

    `open_source` gets the offset per partition (0 where absent) at which the learning goes on. ConfigurationError when
    the newest version was learnt with another setup. A kill loses only what was learnt since the last version; the
    restart learns the same again from that version's offsets.
    """
    torch.set_num_threads(1)  # sums in one order, on every machine; the steps are too small for more
    with registry.claim():
        run = _Run(setup, publish, teacher_version, registry, UnshownSource(unshown))
        source = open_source(run.offsets)
        try:
            run.learn_until(stop, source, LogitSource(cache, len(setup.teacher_tasks), _max_wait_seconds(setup)))
        finally:
            source.close()


def _max_wait_seconds(setup: LearnerSetup) -> float:
    live = (config.max_wait_seconds for config in setup.distillation if config.schedule != "off" and config.weight > 0)
    return max(live, default=0.0)


class _Run:
    """A learner, and what of it is published."""

    def __init__(
        self,
        setup: LearnerSetup,
        publish: PublishConfig,
        teacher_version: str | None,
        registry: Registry,
        unshown: UnshownSource,
    ) -> None:
        self.offsets: dict[int, int] = {}
        self._publish_config = publish
        self._teacher_version = teacher_version
        self._registry = registry
        self._unshown = unshown
        self._learner = Learner(setup)
        self._published_examples = -1
        self._restore(registry.latest())
        self._progress = Progress(registry.metrics_folder, self._learner.examples, self._learner.evaluation)
        if registry.latest() is None:
            self._publish()  # the scorer is ready before the first example
        self._published_at = self._logged_at = time.monotonic()
        self._logged_examples = self._learner.examples

    def learn_until(self, stop: StopSignal, source: ExampleSource, logits: LogitSource) -> None:
        """Learn micro-batch by micro-batch, publish in between, and once more at the end."""
        config = self._learner.setup.student
        batches = MicroBatches(config.micro_batch, config.max_wait_seconds)
        source.commit(self.offsets)
        while not stop.is_set():
            for batch in batches.add(source.poll(_POLL_SECONDS)):
                if stop.is_set() or not self._learn(batch, logits, stop):
                    break
                self._tick(source)
            self._tick(source)
        self._publish_if_new(source)

    def _restore(self, version: str | None) -> None:
        if version is None:
            return
        manifest, tensors, state = self._registry.load_learner(version)
        self._learner.setup.check_continues(version, state["setup"])
        self._learner.restore(tensors, state)
        self.offsets = {int(partition): offset for partition, offset in manifest.offsets.items()}
        self._published_examples = manifest.examples
        if self._registry.champion() is None:  # killed within the first publish
            self._registry.promote(version)
        _set_gauges(self._learner, version)
        _log.info("continuing from version %s examples=%d offsets=%s", version, manifest.examples, self.offsets)

    def _learn(self, batch: Sequence[Record], logits: LogitSource, stop: StopSignal) -> bool:
        """One micro-batch; False, with nothing learnt, when a stop came while its logits were awaited."""
        examples = [record.example for record in batch]
        logit_BT = logits.fetch(examples, stop)
        if logit_BT is None:
            return False
        try:
            with STEP.time():
                self._learner.learn(examples, logit_BT, self._unshown.fetch(examples))
        except InvalidInputError as error:
            places = f"partition {batch[0].partition} from offset {batch[0].offset} on"
            raise InvalidInputError(f"examples topic, {places}: {error}") from error
        self.offsets = offsets_after(self.offsets, batch)
        EXAMPLES.set(self._learner.examples)
        self._progress.update(self._learner.examples)
        return True

    def _tick(self, source: ExampleSource) -> None:
        """What is due by the wall clock, between two steps."""
        if time.monotonic() - self._published_at >= self._publish_config.every_seconds:
            self._publish_if_new(source)
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._report(source)

    def _publish_if_new(self, source: ExampleSource) -> None:
        if self._learner.examples > self._published_examples:
            self._publish()
            source.commit(self.offsets)
            self._registry.prune(self._publish_config.keep)
        self._published_at = time.monotonic()

    def _publish(self) -> None:
        learner = self._learner
        slices = self._progress.publish()
        draft = Draft(
            examples=learner.examples,
            bootstrapped_pairs=learner.bootstrapped_pairs,
            offsets={str(partition): offset for partition, offset in self.offsets.items()},
            spec=learner.setup.spec,
            tasks=list(learner.setup.tasks),
            student=learner.setup.student,
            teacher_version=self._teacher_version,
            metrics=slices.pop("whole"),
            slices=slices,
        )
        manifest = self._registry.publish(draft, learner.served_tensors(), learner.tensors(), learner.state())
        self._published_examples = manifest.examples
        _set_gauges(learner, manifest.version)
        _log.info("published version %s examples=%d", manifest.version, manifest.examples)

    def _report(self, source: ExampleSource) -> None:
        seconds = time.monotonic() - self._logged_at
        lag = source.lag()
        LAG.set(lag)
        rate = (self._learner.examples - self._logged_examples) / seconds
        if rate:
            _log.info("learnt examples=%d per_second=%.0f lag=%d", self._learner.examples, rate, lag)
        self._logged_at, self._logged_examples = time.monotonic(), self._learner.examples


def _set_gauges(learner: Learner, version: str) -> None:
    EXAMPLES.set(learner.examples)
    VERSION.set(int(version.removeprefix("v")))
