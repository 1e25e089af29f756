"""The teacher's signal of examples: from the example log where it says what was used, else from the cache.

What the cache gave is written to the topic `used-logits`, so that the example log has it: see
docs/decisions/020-logits-in-the-example-log.md.

Shapes: B examples, b examples of one rank, T teacher tasks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import Counter

from runtime.telemetry import StopSignal
from stream.log.logged_logits import LoggedLogit, LoggedLogits
from stream.log.used_logits import UsedLogitsWriter, UsedRow
from stream.positions import Placed
from student.learn.exchange import Exchange
from student.learn.process.logits import LogitSource
from teacher_cache.cache.cache import usable_or_nan

LOGGED = Counter("graft_student_logged_logits_total", "Examples whose teacher logit, or its absence, the log told")
BEFORE = Counter(
    "graft_student_logits_before_trained_until_total",
    "Examples learnt without a teacher logit since they are from before teacher.trained_until",
)


class _Signals(NamedTuple):
    """What one rank, or all, found for its examples; `asked_b`: which of them the log says nothing of."""

    logit_bT: NDArray[np.float32]
    asked_b: NDArray[np.bool_]


class TeacherSource:
    """Gives the teacher's logits of examples, and tells `used` what the cache had of them.

    Without a teacher `logits` is None, and T is 0. `logged`: what an example log knows, which is not asked for again.
    `from_ms`: examples before that event time have nothing of the teacher, wherever it stands. Each rank asks for its
    own examples, and all get what every rank found; the one with `used` writes for all.
    """

    def __init__(
        self,
        logits: LogitSource | None,
        exchange: Exchange,
        *,
        tasks: int,
        logged: LoggedLogits | None = None,
        used: UsedLogitsWriter | None = None,
        from_ms: int = 0,
    ) -> None:
        self._logits = logits
        self._exchange = exchange
        self._logged = logged
        self._used = used
        self._from_ms = from_ms
        self._tasks = tasks

    def fetch(self, records: Sequence[Placed], stop: StopSignal) -> NDArray[np.float32] | None:
        """Of B examples [B, T], a row of NaN where there are none; None when `stop` was set on any rank."""
        if self._logits is None:
            return np.empty((len(records), 0), np.float32)
        own = self._fetch_own(self._exchange.own(records), stop) if self._has_room(stop) else None
        if self._exchange.any(own is None or stop.is_set()) or own is None:
            return None
        signals = self._of_all_ranks(own, len(records))
        self._note_used(records, signals)
        return signals.logit_bT

    def _of_all_ranks(self, own: _Signals, count: int) -> _Signals:
        """What the ranks found for all `count` examples."""
        columns = torch.from_numpy(np.column_stack([own.logit_bT, own.asked_b.astype(np.float32)]))
        (column_tensor,) = self._exchange.whole([columns], count)
        logit_BT, asked_B = np.ascontiguousarray(column_tensor.numpy()[:, :-1]), column_tensor.numpy()[:, -1] > 0
        return _Signals(logit_BT, asked_B)

    def _note_used(self, records: Sequence[Placed], signals: _Signals) -> None:
        """Tell `used` what the examples had of which the log says nothing."""
        if self._used is None:
            return
        miss_B = np.asarray(np.isnan(signals.logit_bT).any(axis=1))
        logits = signals.logit_bT.tolist()
        asked = np.flatnonzero(signals.asked_b).tolist()
        self._used.add([_used_row(records[n], None if miss_B[n] else logits[n]) for n in asked])

    def _fetch_own(self, records: Sequence[Placed], stop: StopSignal) -> _Signals | None:
        logit_bT = np.full((len(records), self._tasks), np.nan, np.float32)
        asked_b = np.zeros(len(records), np.bool_)
        for n, (record, logged) in enumerate(zip(records, self._logged_of(records), strict=True)):
            if record.example.event_time_ms < self._from_ms:
                BEFORE.inc()
            elif logged is None:
                asked_b[n] = True
            else:
                LOGGED.inc()
                logit_bT[n] = usable_or_nan(logged.logits, self._tasks)
        if asked_b.any():
            assert self._logits
            rows = np.flatnonzero(asked_b)
            asked_bT = self._logits.fetch([records[int(n)].example for n in rows], stop)
            if asked_bT is None:
                return None
            logit_bT[rows] = asked_bT
        return _Signals(logit_bT, asked_b)

    def _logged_of(self, records: Sequence[Placed]) -> Sequence[LoggedLogit | None]:
        return [None] * len(records) if self._logged is None else self._logged.of(records)

    def _has_room(self, stop: StopSignal) -> bool:
        """Wait while too much of what was used waits for Kafka; False when a stop came first."""
        while self._used is not None and self._used.is_full and not self._used.flush():
            if stop.is_set():
                return False
        return True


def _used_row(record: Placed, logits: list[float] | None) -> UsedRow:
    return UsedRow(record.partition, record.offset, record.example.impression_id, logits)
