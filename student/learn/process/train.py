"""The learner process: examples from Kafka, logits from Redis, versions into the registry.

Also as several processes, the ranks of one exchange: they learn together what one alone would have learnt.
"""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from runtime.errors import DataLossError, InvalidInputError
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from runtime.tracing import TRACING
from stream.positions import Placed, Positions
from student.evaluate.gate import Gate
from student.evaluate.served import ServedEvaluation
from student.evaluate.served_versions import ServedVersions
from student.learn.batch import Encoded, encode
from student.learn.exchange import ALONE, Exchange
from student.learn.learner import Learner
from student.learn.network.model import CPU
from student.learn.process.publishing import ExamplesTopic, Publication, Publisher
from student.learn.process.set_aside import Rejected, SetAside
from student.learn.process.skew_watch import SkewWatch
from student.learn.process.teacher_source import TeacherSource, Teaching
from student.learn.setup import LearnerSetup
from student.versions.registry import Registry

LEARNING = Histogram(
    "graft_student_learning_seconds",
    "Predicting and learning some examples, of one step at most, in both arms",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)

REFUSED_STEPS = Counter(
    "graft_student_refused_steps_total", "Steps of the networks not taken: they would have made weights not finite"
)

_log = logging.getLogger(__name__)

_LOOP = "learning"
_MOST_UNLEARNABLE = 100
"""Unlearnable examples in a row at which the learner stops: then it is not they who are wrong, but the project."""

_AT_ONCE = 128
"""Records; a look-up of few costs as much as that of many. A stop waits until they are learnt: some 20 ms."""

_POLL_SECONDS = 0.2  # how soon a quiet process sees a stop or a version that is due

_NO_LOGITS = np.empty((0, 0), np.float32)
"""Of no examples."""


class ExampleSource(ExamplesTopic, Protocol):
    """Gives the examples in their order, from given offsets on: from the topic, or from an example log before it."""

    def poll(self, timeout_seconds: float) -> Sequence[Placed]:
        """The next records; none after `timeout_seconds`."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Examples(NamedTuple):
    """Where the examples come from.

    `open_source` gets the offset per partition at which the learning goes on; a partition that the version does not
    know is absent. `topic_id`: Kafka's id of the examples topic, None where it tells none.
    """

    open_source: Callable[[Mapping[int, int]], ExampleSource]
    topic_id: str | None = None


def run_training(  # noqa: PLR0913 - each names a role
    setup: LearnerSetup,
    examples: Examples,
    teaching: Teaching | None,
    publication: Publication,
    stop: StopSignal,
    *,
    exchange: Exchange = ALONE,
    device: torch.device = CPU,
    skew: SkewWatch | None = None,
) -> None:
    """Learn from the newest version on, or from the first example on, until `stop`; then publish what is learnt.

    `teaching`: None without a teacher. DataLossError when the newest version was learnt from a topic with another id,
    ConfigurationError when it was learnt with another setup. A kill loses only what was learnt since the last version;
    the restart learns the same again from that version's offsets.

    With an `exchange` of several ranks their sources give all of them the same records. A stop of one stops all, as
    does the end of what started them. The first one alone writes to the registry, which all of them can read, and
    compares with what was served, if there is `skew`.
    """
    torch.set_num_threads(1)  # sums in one order, on every machine; the steps are too small for more
    registry = publication.registry
    with ExitStack() as opened:
        opened.enter_context(registry.claim() if exchange.rank == 0 else nullcontext())
        served = _served(setup, publication) if exchange.rank == 0 else None
        learner = Learner(setup, exchange, device, served)
        offsets = _restore(learner, registry, exchange, examples.topic_id)
        publisher = set_aside = None
        if served is None:
            skew = None
        else:
            registry.learner_id()  # made before the first version: a copy of the registry is known by it
            publisher = Publisher(learner, served, offsets, publication, teaching, examples.topic_id)
            set_aside = SetAside(registry.folder)
        teacher = TeacherSource(teaching, setup, exchange)
        source = opened.enter_context(closing(examples.open_source(offsets)))
        gc.collect()
        gc.freeze()  # torch's objects live until the end: looking through them again and again is a tenth of the time
        _Run(learner, offsets, teacher, publisher, set_aside, exchange, skew).learn_until(stop, source)


def _served(setup: LearnerSetup, publication: Publication) -> ServedEvaluation:
    registry, config = publication.registry, publication.gate
    gate = None if config.policy == "off" else Gate(setup.tasks, setup.spec, config, registry)
    return ServedEvaluation(setup.tasks, ServedVersions(registry), gate)


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
    _log.info(
        "continuing from version %s examples=%d offsets=%s",
        version,
        manifest.examples,
        offsets,
        extra={"version": version},
    )
    return offsets


def _refuse_other_topic(version: str, learnt: str | None, found: str | None) -> None:
    """DataLossError where both ids are known and differ: offsets say nothing of another topic."""
    if learnt and found and learnt != found:
        raise DataLossError(
            f"version {version} was learnt from an examples topic with the id {learnt}, but the topic of that name now "
            f"has {found}: it was deleted and made anew, and the version's offsets do not count in it; set "
            "GRAFT_VERSIONS to a new folder, and a new student begins with the oldest example of the new topic"
        )


def offsets_after(offsets: Mapping[int, int], records: Sequence[Placed]) -> dict[int, int]:
    """The next offset of each partition once `records` are learnt; OffsetError when their offsets do not rise."""
    positions = Positions(lambda partition: f"the examples topic, partition {partition}", offsets)
    for record in records:
        positions.take(record.partition, record.offset)
    return dict(positions)


class _Run:
    """The loop of one learner process; only the first rank publishes and sets examples aside."""

    def __init__(
        self,
        learner: Learner,
        offsets: dict[int, int],
        teacher: TeacherSource,
        publisher: Publisher | None,
        set_aside: SetAside | None,
        exchange: Exchange,
        skew: SkewWatch | None,
    ) -> None:
        self._learner = learner
        self._offsets = offsets
        self._teacher = teacher
        self._publisher = publisher
        self._set_aside = set_aside
        self._exchange = exchange
        self._skew = skew
        self._unlearnable_in_a_row = 0

    def learn_until(self, stop: StopSignal, source: ExampleSource) -> None:
        """Learn what comes, publish in between, and once more at the end."""
        if self._publisher:
            source.commit(self._offsets)
        HEALTH.begin(_LOOP)
        while not self._exchange.any(stop.is_set() or self._exchange.is_abandoned()):
            records = source.poll(_POLL_SECONDS)
            while records:
                first, records = records[:_AT_ONCE], records[_AT_ONCE:]
                with TRACING.batch("learn examples", len(first)):
                    is_learnt = self._learn(first, stop, source)
                if not is_learnt:
                    break
            self._tick(source)
        if self._publisher:
            self._publisher.publish_if_new(source)

    def _learn(self, records: Sequence[Placed], stop: StopSignal, source: ExampleSource) -> bool:
        """Learn records, step by step; False, with nothing learnt, when a stop came first."""
        rows = encode(self._learner.setup, [record.example for record in records])
        sound = [record for record, fault in zip(records, rows.faults, strict=True) if fault is None]
        logit_BT = self._teacher.fetch(sound, stop) if sound else _NO_LOGITS
        if logit_BT is None:
            return False
        if self._skew and sound:
            self._skew.compare([record.example.impression_id for record in sound], rows.features)
        first = row = 0
        while first < len(records):
            part = slice(first, first + self._learner.room)
            last_row = row + rows.faults[part].count(None)
            self._learn_part(records[part], rows.part(part, slice(row, last_row)), logit_BT[row:last_row])
            self._tick(source)
            first, row = part.stop, last_row
        return True

    def _learn_part(self, records: Sequence[Placed], rows: Encoded, logit_BT: NDArray[np.float32]) -> None:
        """As many records as the open step has room for, at most.

        Examples that cannot be learnt are set aside; InvalidInputError after too many of them in a row.
        """
        self._leave_out(records, rows.faults)
        learnt = [record.example for record, fault in zip(records, rows.faults, strict=True) if fault is None]
        if learnt:
            self._learn_examples(rows, logit_BT, learnt[-1].impression_id)
        self._offsets = offsets_after(self._offsets, records)
        if self._publisher:
            self._publisher.learnt(self._offsets)

    def _learn_examples(self, rows: Encoded, logit_BT: NDArray[np.float32], last_impression: str) -> None:
        with LEARNING.time():
            taken = self._learner.learn_encoded(rows, logit_BT)
        if not taken:
            REFUSED_STEPS.inc()
            _log.error(
                "a step of the networks was not taken: it would have made weights or optimizers not finite; the last "
                "of its examples is that of impression %s",
                last_impression,
            )

    def _leave_out(self, records: Sequence[Placed], faults: Sequence[str | None]) -> None:
        """Set those with a fault aside."""
        rejected = [Rejected(record, fault) for record, fault in zip(records, faults, strict=True) if fault]
        if rejected and self._set_aside:
            self._set_aside.add(rejected)
        for record, fault in zip(records, faults, strict=True):
            self._unlearnable_in_a_row = self._unlearnable_in_a_row + 1 if fault else 0
            if self._unlearnable_in_a_row == _MOST_UNLEARNABLE:
                raise InvalidInputError(
                    f"examples topic, partition {record.partition}, offset {record.offset}: "
                    f"{_MOST_UNLEARNABLE} examples in a row cannot be learnt, so the learner stops; {fault}"
                )

    def _tick(self, source: ExampleSource) -> None:
        HEALTH.round_ended(_LOOP)
        if self._publisher:
            self._publisher.tick(source)
