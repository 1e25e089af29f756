"""The learner process: examples from Kafka, logits from Redis, versions into the registry.

Also as several processes, the ranks of one exchange: they learn together what one alone would have learnt.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from prometheus_client import Histogram

from runtime.errors import DataLossError, InvalidInputError
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from student.learn.config import PublishConfig
from student.learn.exchange import ALONE, Exchange
from student.learn.learner import Learner
from student.learn.logits import LogitSource, TeacherSource, UnshownSource
from student.learn.micro_batch import MicroBatches, Record, offsets_after
from student.learn.model import CPU
from student.learn.publishing import ExamplesTopic, Publisher
from student.learn.setup import LearnerSetup
from student.versions.registry import Registry
from teacher_cache.cache import LogitCache
from teacher_cache.unshown import UnshownCache

STEP = Histogram(
    "graft_student_step_seconds",
    "Predicting, judging and learning one micro-batch in both arms",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)

_log = logging.getLogger(__name__)

_LOOP = "learning"
_POLL_SECONDS = 0.2  # how soon a quiet process sees a stop or a version that is due


class ExampleSource(ExamplesTopic, Protocol):
    """Gives the examples in their order, from given offsets on: from the topic, or from an example log before it."""

    def poll(self, timeout_seconds: float) -> Sequence[Record]:
        """The next records; none after `timeout_seconds`."""
        ...

    def close(self) -> None:
        """Close the connections."""
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
    topic_id: str | None = None,
    stop: StopSignal,
    exchange: Exchange = ALONE,
    device: torch.device = CPU,
) -> None:
    """Learn from the newest version on, or from the first example on, until `stop`; then publish what is learnt.

    `open_source` gets the offset per partition at which the learning goes on; a partition that the version does not
    know is absent. `topic_id`: Kafka's id of the examples topic, None where it tells none. DataLossError when the
    newest version was learnt from a topic with another id, ConfigurationError when it was learnt with another setup. A
    kill loses only what was learnt since the last version; the restart learns the same again from that version's
    offsets.

    With an `exchange` of several ranks their sources give all of them the same records. A stop of one stops all, as
    does the end of what started them. The first one alone writes to the registry, which all of them can read.
    """
    torch.set_num_threads(1)  # sums in one order, on every machine; the steps are too small for more
    with registry.claim() if exchange.rank == 0 else nullcontext():
        learner = Learner(setup, exchange, device)
        offsets = _restore(learner, registry, exchange, topic_id)
        publisher = None
        if exchange.rank == 0:
            publisher = Publisher(learner, offsets, registry, publish, teacher_version, topic_id)
        logits = LogitSource(cache, len(setup.teacher_tasks), _wait_seconds(setup))
        teacher = TeacherSource(logits, None if unshown is None else UnshownSource(unshown), exchange)
        source = open_source(offsets)
        try:
            _Run(learner, offsets, teacher, publisher, exchange).learn_until(stop, source)
        finally:
            source.close()


def _wait_seconds(setup: LearnerSetup) -> float:
    """Nobody waits for logits that nothing learns from."""
    return setup.wait_seconds if any(config.weight > 0 for config in setup.distillation) else 0.0


def _restore(learner: Learner, registry: Registry, exchange: Exchange, topic_id: str | None) -> dict[int, int]:
    """Take over the newest version that the first rank sees; the offsets at which the learning goes on."""
    latest = (registry.latest() or "").encode()
    version = exchange.gather([latest])[0][0].decode()
    if not version:
        return {}
    manifest, tensors, state = registry.load_learner(version)
    learner.setup.check_continues(version, state["setup"])
    if manifest.offsets:
        _refuse_other_topic(version, manifest.topic_id, topic_id)
    learner.restore(tensors, state)
    offsets = {int(partition): offset for partition, offset in manifest.offsets.items()}
    _log.info("continuing from version %s examples=%d offsets=%s", version, manifest.examples, offsets)
    return offsets


def _refuse_other_topic(version: str, learnt: str | None, found: str | None) -> None:
    """DataLossError where both ids are known and differ: offsets say nothing of another topic."""
    if learnt and found and learnt != found:
        raise DataLossError(
            f"version {version} was learnt from an examples topic with the id {learnt}, but the topic of that name now "
            f"has {found}: it was deleted and made anew, and the version's offsets do not count in it; set "
            "GRAFT_VERSIONS to a new folder, and a new student begins with the oldest example of the new topic"
        )


class _Run:
    """The loop of one learner process; only the first rank has a publisher."""

    def __init__(
        self,
        learner: Learner,
        offsets: dict[int, int],
        teacher: TeacherSource,
        publisher: Publisher | None,
        exchange: Exchange,
    ) -> None:
        self._learner = learner
        self._offsets = offsets
        self._teacher = teacher
        self._publisher = publisher
        self._exchange = exchange

    def learn_until(self, stop: StopSignal, source: ExampleSource) -> None:
        """Learn micro-batch by micro-batch, publish in between, and once more at the end."""
        config = self._learner.setup.student
        batches = MicroBatches(config.micro_batch, config.max_wait_seconds)
        if self._publisher:
            source.commit(self._offsets)
        HEALTH.begin(_LOOP)
        while not self._exchange.any(stop.is_set() or self._exchange.is_abandoned()):
            for batch in batches.add(source.poll(_POLL_SECONDS)):
                if not self._learn(batch, stop):
                    break
                self._tick(source)
            self._tick(source)
        if self._publisher:
            self._publisher.publish_if_new(source)

    def _learn(self, batch: Sequence[Record], stop: StopSignal) -> bool:
        """One micro-batch; False, with nothing learnt, when a stop came first."""
        examples = [record.example for record in batch]
        signal = self._teacher.fetch(examples, stop)
        if signal is None:
            return False
        try:
            with STEP.time():
                self._learner.learn(examples, *signal)
        except InvalidInputError as error:
            places = f"partition {batch[0].partition} from offset {batch[0].offset} on"
            raise InvalidInputError(f"examples topic, {places}: {error}") from error
        self._offsets = offsets_after(self._offsets, batch)
        if self._publisher:
            self._publisher.step(self._offsets)
        return True

    def _tick(self, source: ExampleSource) -> None:
        HEALTH.round_ended(_LOOP)
        if self._publisher:
            self._publisher.tick(source)
