"""Acts on the gate's verdicts: which version serves, and who is told. The gate itself: student/evaluate/gate.py."""

import logging

from prometheus_client import Counter

from student.evaluate.gate import Gate
from student.versions.gate import STOPS, Comparison, GateRecord, told, verdict_of
from student.versions.names import CHAMPION, Reference
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

VERDICTS = Counter("graft_student_verdicts_total", "Verdicts of the gate on published versions", ["verdict"])

GATE = "the gate"
"""Who moves and holds the champion, in the history of names."""

_log = logging.getLogger(__name__)


class Verdicts:
    """Takes a verdict before each publish. A person who holds the champion goes before the gate.

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
