"""The teacher's signal of examples: what an example log has of it, else what the cache has.

See docs/decisions/020-logits-in-the-example-log.md. Shapes: B examples, b examples of one rank, T teacher tasks.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import Counter

from runtime.telemetry import StopSignal
from stream.positions import ArchivedLogits, Placed
from student.learn.exchange import Exchange
from student.learn.process.logits import LogitSource
from student.learn.setup import LearnerSetup
from teacher_cache.cache.cache import LogitCache, usable_or_nan

LOGGED = Counter("graft_student_logged_logits_total", "Examples whose teacher logit the example log had")
BEFORE = Counter(
    "graft_student_logits_before_trained_until_total",
    "Examples learnt without a teacher logit since they are from before teacher.trained_until",
)

_log = logging.getLogger(__name__)


class Teaching(NamedTuple):
    """The teacher of a learner: where its logits wait, its name, and the digest of what they mean."""

    cache: LogitCache
    version: str
    generation: str | None = None


class TeacherSource:
    """Gives the teacher's logits of examples. Without `teaching` there are none, and T is 0.

    The cache is asked for what the example log does not have of this generation. Examples from before
    `setup.logits_from_ms` have nothing of the teacher, wherever it stands. Each rank asks for its own examples, and all
    get what every rank has.
    """

    def __init__(self, teaching: Teaching | None, setup: LearnerSetup, exchange: Exchange) -> None:
        self._tasks = len(setup.teacher_tasks)
        self._from_ms = setup.logits_from_ms
        self._exchange = exchange
        self._generation = teaching and teaching.generation
        self._logits = teaching and LogitSource(teaching.cache, self._tasks, _wait_seconds(setup))
        self._other_generations: set[str] = set()

    def fetch(self, records: Sequence[Placed], stop: StopSignal) -> NDArray[np.float32] | None:
        """Of B examples [B, T], a row of NaN where there are none; None when `stop` was set on any rank."""
        if self._logits is None:
            return np.empty((len(records), 0), np.float32)
        logit_bT = self._fetch_own(self._logits, self._exchange.own(records), stop)
        if self._exchange.any(logit_bT is None or stop.is_set()) or logit_bT is None:
            return None
        (logit_tensor_BT,) = self._exchange.whole([torch.from_numpy(logit_bT)], len(records))
        logit_BT: NDArray[np.float32] = logit_tensor_BT.numpy()
        return logit_BT

    def _fetch_own(
        self, cached: LogitSource, records: Sequence[Placed], stop: StopSignal
    ) -> NDArray[np.float32] | None:
        logit_bT = np.full((len(records), self._tasks), np.nan, np.float32)
        asked: list[int] = []
        for row, record in enumerate(records):
            if record.example.event_time_ms < self._from_ms:
                BEFORE.inc()
                continue
            logit_bT[row] = self._logged(record.archived)
            if np.isnan(logit_bT[row]).any():
                asked.append(row)
            else:
                LOGGED.inc()
        if asked:
            cached_bT = cached.fetch([records[row].example for row in asked], stop)
            if cached_bT is None:
                return None
            logit_bT[asked] = cached_bT
        return logit_bT

    def _logged(self, archived: ArchivedLogits | None) -> NDArray[np.float32]:
        """What the log has of this generation [T]; NaN where it has nothing usable."""
        if archived is not None and archived.generation != self._generation:
            if archived.generation not in self._other_generations:
                self._other_generations.add(archived.generation)
                _log.warning(
                    "the example log has logits of generation %s, where %s is wanted: the cache is asked",
                    archived.generation,
                    self._generation,
                )
            archived = None
        return usable_or_nan(archived and archived.logits, self._tasks)


def _wait_seconds(setup: LearnerSetup) -> float:
    """Nobody waits for logits that nothing learns from."""
    return setup.wait_seconds if any(config.weight > 0 for config in setup.distillation) else 0.0
