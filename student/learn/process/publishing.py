"""What a learner process gives out: versions, which of them serves, the history of its metrics, gauges and offsets."""

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from prometheus_client import Counter, Gauge

from student.evaluate.gate import Gate
from student.evaluate.history import Progress
from student.evaluate.served import ServedEvaluation
from student.learn.config import PublishConfig
from student.learn.learner import Learner
from student.learn.process.teacher_source import Teaching
from student.versions.gate import STOPS, Comparison, GateConfig, GateRecord, told, verdict_of
from student.versions.manifest import Draft
from student.versions.names import CHAMPION, Reference, number_of
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

EXAMPLES = Gauge("graft_student_learned_examples", "Examples learnt since the first version")
LAG = Gauge("graft_student_lag_records", "Records of the examples topic that are not learnt yet")
VERSION = Gauge("graft_student_version", "Number of the last published version")
HELD = Gauge("graft_student_champion_held", "1 while a person or the gate holds the champion")

VERDICTS = Counter("graft_student_verdicts_total", "Verdicts of the gate on published versions", ["verdict"])

_log = logging.getLogger(__name__)

GATE = "the gate"
"""Who moves and holds the champion, in the history of names."""

_LOG_SECONDS = 5.0
_DEFAULT_GATE = GateConfig()


class ExamplesTopic(Protocol):
    """Receives the learner's offsets and knows the topic's lag."""

    def lag(self) -> int:
        """Records not yet polled."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Take the offset per partition up to which all is learnt and published."""
        ...


class Publication(NamedTuple):
    """Where versions go, how often, and what decides which of them serves."""

    registry: Registry
    config: PublishConfig
    gate: GateConfig = _DEFAULT_GATE


class Verdicts:
    """Takes the gate's verdict before each publish, and acts on it: which version serves, and who is told.

    A person who holds the champion goes before the gate.

    After a stop the gate judges no more until somebody releases the champion; then it starts anew.
    """

    def __init__(self, gate: Gate, registry: Registry, record: GateRecord | None) -> None:
        """`record`: of the version from which the learner goes on."""
        self._gate = gate
        self._registry = registry
        self._record = record
        for verdict in ("promote", *STOPS):
            VERDICTS.labels(verdict)

    @property
    def newest_serves(self) -> bool:
        """Whether a version that is published now becomes the champion, unless a person holds that."""
        return not self._gate.stopped and (self._gate.config.policy == "newest" or self._gate.champion is None)

    def take(self) -> GateRecord:
        """The verdict on the examples so far, which is done; all examples must have been told to the gate."""
        gate, held = self._gate, self._registry.names.held()
        if held is not None and held.by == GATE:
            gate.stopped = True  # also after a kill between the hold and the version that tells of it
        elif gate.stopped and held is None:
            _log.info("the champion was released: the gate starts anew")
            gate.start_anew()
        if gate.stopped and self._record is not None:
            return self._record
        record = gate.judge()
        verdict, decisive = verdict_of(record)
        if decisive is not None:
            self._stop(record, decisive)
            record = record.model_copy(update={"stopped": gate.stopped})
        elif verdict == "promote":
            self._promote(record)
        self._record = record
        return record

    def _promote(self, record: GateRecord) -> None:
        VERDICTS.labels("promote").inc()
        first = record.comparisons[0]
        _log.info("promote: %s", told(first, record))
        if self._gate.config.policy == "proven" and record.proven:
            self._registry.names.move(
                CHAMPION, record.proven, by=GATE, why="proven", numbers=_numbers(first), unless_held=True
            )

    def _stop(self, record: GateRecord, decisive: Comparison) -> None:
        """Let the last proven version serve, and hold it; what serves stays where that one cannot serve.

        Nothing moves while a person holds the champion.
        """
        names, why = self._registry.names, f"{record.verdict}: {told(decisive, record)}"
        to = self._champion(record)
        move = names.move(
            CHAMPION, to, by=GATE, why=why, numbers=_numbers(decisive), hold=True, unless_held=True, back=True
        )
        held = names.held()
        if move is not None:
            self._gate.stopped = True
            VERDICTS.labels(record.verdict).inc()
            advice = "'graft student hold --end' lets the learner's versions serve again"
            _log.error("%s serves and is held, by the gate; %s; %s", to, why, advice, extra={"version": to})
        elif held is not None and (self._record is None or self._record.verdict != record.verdict):
            _log.warning("the gate would hold %s, but %s holds %s; %s", to, held.by, held.to, why)

    def _champion(self, record: GateRecord) -> str | None:
        try:
            if record.proven is not None:
                self._registry.check_serves(Reference(record.proven))
                return record.proven
        except VersionError as error:
            _log.warning("the gate cannot go back to the last version that was proven: %s", error)
        return self._registry.names.legible(CHAMPION)


def _numbers(comparison: Comparison) -> dict[str, float]:
    ends = dict(zip(("low", "high"), comparison.interval or (), strict=False))
    return {
        "examples": float(comparison.examples),
        **ends,
        "bound": comparison.bound,
        "evidence": comparison.evidence,
    }


class Publisher:
    """Publishes versions of a learner that has learnt up to `offsets`: one whenever it is due.

    Into an empty registry it publishes one at once, so that the scorer is ready before the first example. `served` is
    the evaluation that the learner tells of its examples; it is told of the versions here. The registry must be
    claimed. When the disk refuses a publish, the GraftError ends the process: what is not in a version is learnt again,
    from the last version's offsets, by the next.
    """

    def __init__(
        self,
        learner: Learner,
        served: ServedEvaluation,
        offsets: Mapping[int, int],
        publication: Publication,
        teaching: Teaching | None = None,
        topic_id: str | None = None,
    ) -> None:
        self._learner = learner
        self._served = served
        self._offsets = offsets
        self._registry = registry = publication.registry
        self._config = publication.config
        self._teaching = teaching
        self._topic_id = topic_id
        latest = registry.latest()
        manifest = None if latest is None else registry.load_manifest(latest)
        if manifest is not None:
            served.restore(registry.load_served_metrics(manifest.version), manifest.served_by, manifest.gate)
            served.published(manifest)
        record = manifest.gate if manifest else None
        self._verdicts = Verdicts(served.gate, registry, record) if served.gate else None
        self._progress = Progress(registry.metrics_folder, learner.judged, [learner.evaluation, served])
        if latest is None:
            self._publish()
        else:
            self._stand_at(latest)
            if mended := registry.mend_champion():  # killed within the first publish, or removed by hand
                _log.warning("no champion was there; version %s serves", mended, extra=_of(mended))
        self._published_at = self._logged_at = time.monotonic()
        self._logged_examples = learner.examples

    def learnt(self, offsets: Mapping[int, int]) -> None:
        """Take note that all examples before `offsets` are learnt."""
        self._offsets = offsets
        EXAMPLES.set(self._learner.examples)
        self._progress.update(self._learner.judged)

    def tick(self, topic: ExamplesTopic) -> None:
        """Publish and log what is due by the wall clock; called between two calls of the learner."""
        if time.monotonic() - self._published_at >= self._config.every_seconds:
            self.publish_if_new(topic)
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._report(topic)

    def publish_if_new(self, topic: ExamplesTopic) -> None:
        """Publish what was learnt since the last version, if anything was."""
        if self._learner.examples > self._published_examples:
            self._publish()
            topic.commit(self._offsets)
            compared = self._served.gate.kept if self._served.gate else []
            self._registry.prune(self._config.keep, [*self._served.kept, *compared])
        self._published_at = time.monotonic()

    def _publish(self) -> None:
        learner = self._learner
        slices = self._progress.publish()
        record = self._verdicts.take() if self._verdicts else None
        draft = Draft(
            examples=learner.examples,
            bootstrapped_rows=learner.bootstrapped_rows,
            learnt_until_ms=learner.learnt_until_ms,
            offsets={str(partition): offset for partition, offset in self._offsets.items()},
            topic_id=self._topic_id,
            spec=learner.setup.spec,
            tasks=list(learner.setup.tasks),
            student=learner.setup.student,
            teacher_tasks=[task.name for task in learner.setup.teacher_tasks],
            teacher_version=self._teaching and self._teaching.version,
            teacher_generation=self._teaching and self._teaching.generation,
            served_by=self._served.kept,
            gate=record,
            metrics=slices.pop("whole"),
            slices=slices,
        )
        tensors = learner.served_tensors(), learner.tensors(), learner.state(), self._served.tensors()
        newest_serves = self._verdicts is None or self._verdicts.newest_serves
        manifest = self._registry.publish(draft, *tensors, promote=newest_serves)
        self._served.published(manifest)
        self._stand_at(manifest.version)
        held = self._registry.names.held()
        HELD.set(held is not None)
        stays = f"; {self._registry.names.legible(CHAMPION)} stays champion"
        beside = f"{stays}, held by {held.by}: {held.why}" if held else "" if newest_serves else stays
        _log.info(
            "published version %s examples=%d%s",
            manifest.version,
            manifest.examples,
            beside,
            extra=_of(manifest.version),
        )

    def _stand_at(self, version: str) -> None:
        """Take note that `version` holds this learner."""
        self._published_examples = self._learner.examples
        EXAMPLES.set(self._learner.examples)
        VERSION.set(number_of(version))

    def _report(self, topic: ExamplesTopic) -> None:
        seconds = time.monotonic() - self._logged_at
        lag = topic.lag()
        LAG.set(lag)
        rate = (self._learner.examples - self._logged_examples) / seconds
        if rate:
            _log.info("learnt examples=%d per_second=%.0f lag=%d", self._learner.examples, rate, lag)
        self._logged_at, self._logged_examples = time.monotonic(), self._learner.examples


def _of(version: str) -> dict[str, str]:
    """For a log line."""
    return {"version": version}
