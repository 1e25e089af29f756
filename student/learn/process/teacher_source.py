"""The teacher's signal of examples: from the example log where it says what was used, else from the cache.

What the cache gave is written to the topic `used-logits`, so that the example log has it: see
docs/decisions/020-logits-in-the-example-log.md.

Shapes: B examples, b examples of one rank, T teacher tasks.
"""

import json
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
from student.learn.process.logits import LogitSource, UnshownSource
from teacher_cache.cache.logged import decoded
from teacher_cache.cache.unshown import UnshownRows, together

LOGGED = Counter("graft_student_logged_logits_total", "Examples whose teacher logit, or its absence, the log told")
BEFORE = Counter(
    "graft_student_logits_before_trained_until_total",
    "Examples learnt without a teacher logit since they are from before teacher.trained_until",
)


class TeacherSignal(NamedTuple):
    """The teacher's logits of examples, and the unshown rows of those with theirs."""

    logit_BT: NDArray[np.float32]
    unshown: UnshownRows | None

    def part(self, rows: slice) -> "TeacherSignal":
        """Of some of the examples; all unshown rows are of one step."""
        return TeacherSignal(self.logit_BT[rows], self.unshown)


NO_SIGNAL = TeacherSignal(np.empty((0, 0), np.float32), None)
"""Of no examples."""


class _Signals(NamedTuple):
    """What one rank, or all, found for its examples; `asked_b`: which of them the log says nothing of."""

    logit_bT: NDArray[np.float32]
    unshown: list[UnshownRows]
    asked_b: NDArray[np.bool_]


class TeacherSource:
    """Gives what examples have of the teacher, and tells `used` what the cache had of them.

    Without a teacher `logits` is None, and T is 0. With an `unshown` source also unshown rows. `logged`: what an
    example log knows, which is not asked for again. `from_ms`: examples before that event time have nothing of the
    teacher, wherever it stands. Each rank asks for its own examples, and all get what every rank found; the one with
    `used` writes for all.
    """

    def __init__(
        self,
        logits: LogitSource | None,
        unshown: UnshownSource | None,
        exchange: Exchange,
        *,
        tasks: int,
        logged: LoggedLogits | None = None,
        used: UsedLogitsWriter | None = None,
        from_ms: int = 0,
    ) -> None:
        self._logits = logits
        self._unshown = unshown
        self._exchange = exchange
        self._none = UnshownRows([], np.empty((0, tasks), np.float32))
        self._logged = logged
        self._used = used
        self._from_ms = from_ms
        self._tasks = tasks

    @property
    def has_unshown(self) -> bool:
        """Whether it asks for unshown rows, which all belong to one step."""
        return self._unshown is not None

    def fetch(self, records: Sequence[Placed], stop: StopSignal) -> TeacherSignal | None:
        """Of B examples; None when `stop` was set on any rank."""
        if self._logits is None:
            return TeacherSignal(np.empty((len(records), 0), np.float32), None)
        own = self._fetch_own(self._exchange.own(records), stop) if self._has_room(stop) else None
        if self._exchange.any(own is None or stop.is_set()) or own is None:
            return None
        signals = self._of_all_ranks(own, len(records))
        self._note_used(records, signals)
        return TeacherSignal(signals.logit_bT, together(signals.unshown, self._tasks) if self.has_unshown else None)

    def _of_all_ranks(self, own: _Signals, count: int) -> _Signals:
        """What the ranks found for all `count` examples."""
        columns = torch.from_numpy(np.column_stack([own.logit_bT, own.asked_b.astype(np.float32)]))
        (column_tensor,) = self._exchange.whole([columns], count)
        logit_BT, asked_B = np.ascontiguousarray(column_tensor.numpy()[:, :-1]), column_tensor.numpy()[:, -1] > 0
        unshown = self._gathered(own.unshown) if self.has_unshown else [self._none] * count
        return _Signals(logit_BT, unshown, asked_B)

    def _note_used(self, records: Sequence[Placed], signals: _Signals) -> None:
        """Tell `used` what the examples had of which the log says nothing."""
        if self._used is None:
            return
        miss_B = np.asarray(np.isnan(signals.logit_bT).any(axis=1))
        logits = signals.logit_bT.tolist()
        asked = np.flatnonzero(signals.asked_b).tolist()
        self._used.add([self._row(records[n], None if miss_B[n] else logits[n], signals.unshown[n]) for n in asked])

    def _fetch_own(self, records: Sequence[Placed], stop: StopSignal) -> _Signals | None:
        logit_bT = np.full((len(records), self._tasks), np.nan, np.float32)
        unshown: list[UnshownRows | None] = [None] * len(records)
        asked_b = np.zeros(len(records), np.bool_)
        for n, (record, logged) in enumerate(zip(records, self._logged_of(records), strict=True)):
            if record.example.event_time_ms < self._from_ms:
                BEFORE.inc()
                unshown[n] = self._none
            elif logged is None:
                asked_b[n] = True
            else:
                LOGGED.inc()
                logit_bT[n], rows_of_log = decoded(logged, self._tasks)
                unshown[n] = None if logged.unshown is None else rows_of_log
        if asked_b.any():
            assert self._logits
            rows = np.flatnonzero(asked_b)
            asked_bT = self._logits.fetch([records[int(n)].example for n in rows], stop)
            if asked_bT is None:
                return None
            logit_bT[rows] = asked_bT
        self._fetch_unshown(records, unshown)
        return _Signals(logit_bT, [found or self._none for found in unshown], asked_b)

    def _fetch_unshown(self, records: Sequence[Placed], unshown: list[UnshownRows | None]) -> None:
        """Fill in those that are None; they stay so while Redis is away."""
        unknown = [n for n, rows in enumerate(unshown) if rows is None]
        if self._unshown is None or not unknown:
            return
        each = self._unshown.fetch([records[n].example for n in unknown])
        for n, found in zip(unknown, each or (), strict=each is not None):
            unshown[n] = found

    def _logged_of(self, records: Sequence[Placed]) -> Sequence[LoggedLogit | None]:
        return [None] * len(records) if self._logged is None else self._logged.of(records)

    def _gathered(self, own: list[UnshownRows]) -> list[UnshownRows]:
        """Those of the examples of all ranks."""
        if self._exchange.ranks == 1:
            return own
        messages = [json.dumps([rows.features, rows.logit_UT.tolist()]).encode() for rows in own]
        found = (json.loads(message) for rank in self._exchange.gather(messages) for message in rank)
        return [
            UnshownRows(features, np.array(logits, np.float32).reshape(-1, self._tasks)) for features, logits in found
        ]

    def _has_room(self, stop: StopSignal) -> bool:
        """Wait while too much of what was used waits for Kafka; False when a stop came first."""
        while self._used is not None and self._used.is_full and not self._used.flush():
            if stop.is_set():
                return False
        return True

    def _row(self, record: Placed, logits: list[float] | None, unshown: UnshownRows) -> UsedRow:
        rows = list(zip(unshown.features, unshown.logit_UT.tolist(), strict=True)) if self.has_unshown else None
        return UsedRow(record.partition, record.offset, record.example.impression_id, logits, rows)
