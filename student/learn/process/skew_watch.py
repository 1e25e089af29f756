"""Compares the examples that a learner process reads with what serving saw of them, and tells what it finds.

Nothing of it changes what is learnt. It starts anew with each process.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import Gauge

from features.online.served_rows import ServedRow, ServedRowReader
from features.spec import FeatureBatch, FeatureSpec
from runtime.errors import ServiceUnavailableError
from runtime.folder import replacing
from runtime.outage import Outage
from student.evaluate.skew import REPORT_FILE, Drift, Skew, SkewReport

ROWS = Gauge("graft_skew_rows", "Served rows that were compared with their example, since the start", ["outcome"])
FEATURE = Gauge("graft_skew_differing_rows", "Compared rows in which a feature differs, since the start", ["feature"])
AGE = Gauge("graft_skew_age_seconds", "Mean age of a Feast view's rows at serving, since the start", ["view"])
DRIFT = Gauge("graft_skew_drift", "Population stability index of a column between two windows", ["column"])

_log = logging.getLogger(__name__)

_TELL_SECONDS = 5.0
_NAMED = 5
_WINDOW_EXAMPLES = 10_000  # of fewer, the index of a column with 10 bins is noise
_MOST_DIFFERING = 0.1  # a row pushed between serving and logging differs too; a wrong reader differs in nearly all
_MOST_DRIFT = 0.25  # the index from which a column counts as shifted by the usual rule


class SkewWatch:
    """Reads the served rows of examples from Redis, without waiting for a Redis that is away."""

    def __init__(self, reader: ServedRowReader, spec: FeatureSpec, folder: Path) -> None:
        self._reader = reader
        self._skew, self._drift = Skew(spec), Drift(spec, _WINDOW_EXAMPLES)
        self._path = folder / REPORT_FILE
        self._redis = Outage("redis", "what serving saw is not compared meanwhile", stops_work=False)
        self._retry_at = self._told_at = time.monotonic()
        self._was_beyond = False

    def compare(self, impression_ids: Sequence[str], features: FeatureBatch) -> None:
        """Take in B examples."""
        rows = self._read(impression_ids)
        self._skew.compare(features, rows)
        if self._drift.update(features):
            self._tell_drift()
        if any(row is not None for row in rows) and time.monotonic() - self._told_at >= _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Write the report and the metrics; say so once when a bound is passed."""
        self._told_at = time.monotonic()
        report = self._skew.told(self._drift.psi)
        with replacing(self._path) as file:
            file.write(report.model_dump_json(indent=1).encode())
        _set_metrics(report)
        share = report.differing_share or 0.0
        is_beyond = share > _MOST_DIFFERING
        if is_beyond and not self._was_beyond:
            worst = ", ".join(f"{name} in {count}" for name, count in list(report.differing.items())[:_NAMED])
            _log.warning(
                "skew: %d of %d served rows differ from their example, more than %.0f%%: %s",
                report.differing_rows,
                report.rows,
                100 * _MOST_DIFFERING,
                worst,
            )
        self._was_beyond = is_beyond

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.forget()
        self._reader.close()

    def _read(self, impression_ids: Sequence[str]) -> list[ServedRow | None]:
        if time.monotonic() < self._retry_at:
            return []
        try:
            rows = self._reader.read(impression_ids)
        except ServiceUnavailableError as error:
            self._retry_at = time.monotonic() + self._redis.failed(error)
            return []
        self._redis.ended()
        return rows

    def _tell_drift(self) -> None:
        far = [(name, psi) for name, psi in self._drift.psi.items() if psi > _MOST_DRIFT]
        if far:
            worst = ", ".join(f"{name} {psi:.2f}" for name, psi in sorted(far, key=lambda one: -one[1])[:_NAMED])
            _log.warning(
                "drift: of the last %d examples %d columns have a population stability index above %g: %s",
                _WINDOW_EXAMPLES,
                len(far),
                _MOST_DRIFT,
                worst,
            )
        self.tell()


def _set_metrics(report: SkewReport) -> None:
    ROWS.labels("equal").set(report.rows - report.differing_rows)
    ROWS.labels("differing").set(report.differing_rows)
    for feature, count in report.differing.items():
        FEATURE.labels(feature).set(count)
    for view, age in report.ages.items():
        AGE.labels(view).set(age.mean_seconds)
    for column, psi in report.drift.items():
        DRIFT.labels(column).set(psi)
