"""Reads the metrics of the running stages, for the live table and to find out when the demo has finished."""

import time
from collections import deque
from collections.abc import Sequence

from lab.demo.client import ScoringClient, percentile_ms, swaps_seen
from lab.demo.curves import VersionExamples
from lab.demo.events import EventFile
from lab.demo.live import View
from lab.demo.outcome import HitRate
from lab.demo.processes import Supervisor
from lab.demo.scrape import StageMetrics
from lab.demo.stages import LEARNER, SCORER, STREAM, TEACHER, Ports
from lab.demo.witness import IdCount
from student.evaluate.arms import CONTROL, SERVED_CONTROL, SERVED_STUDENT, STUDENT

_RATE_LOOKS = 10
_LATEST_ANSWERS = 1_000


class Watch:
    """The metrics of a running demo; times are in seconds since the client's `started_at`."""

    def __init__(
        self,
        ports: Ports,
        events: EventFile,
        count: IdCount,
        client: ScoringClient,
        supervisor: Supervisor,
        binary_tasks: Sequence[str],
        versions: VersionExamples,
    ) -> None:
        self._metrics = {stage: StageMetrics(port) for stage, port in ports._asdict().items()}
        self._events, self._count, self._client = events, count, client
        self._versions = versions
        self._supervisor, self._binary_tasks, self._started_at = supervisor, binary_tasks, client.started_at
        self._paces: deque[tuple[float, float, int]] = deque([(0.0, 0.0, 0)], maxlen=_RATE_LOOKS)
        self.hits: list[HitRate] = []

    @property
    def learned(self) -> int:
        """Examples that the learner has learnt."""
        return int(self._metrics[LEARNER].gauge("graft_student_learned_examples") or 0)

    @property
    def scorer_swaps(self) -> int:
        """Swaps that the scorer counted, restarts included."""
        return int(self._metrics[SCORER].total("graft_scorer_swaps_total"))

    @property
    def dead_letters(self) -> int:
        """Messages that the stream could not use."""
        return int(self._metrics[STREAM].total("graft_stream_dead_letters_total"))

    @property
    def progress(self) -> tuple[int, int]:
        """Examples on the topic and examples learnt: the demo has stalled when neither grows."""
        return self._count.examples, self.learned

    def is_up(self) -> bool:
        """Whether teacher, learner and scorer work. The stream is not asked: the replay itself waits for it."""
        self._refresh()
        teacher_reads = self._metrics[TEACHER].gauge("graft_teacher_lag_records") is not None
        has_version = self._metrics[LEARNER].gauge("graft_student_version") or 0
        return teacher_reads and has_version > 0 and len(self._client.answers) > 0

    def is_through(self) -> bool:
        """Whether all impressions became examples and all of these are learnt."""
        sent = len(self._events.impression_ids)
        return self._count.distinct >= sent and self.learned >= sent

    def look(self) -> View:
        """Read every stage's metrics again."""
        self._refresh()
        seconds = time.monotonic() - self._started_at
        self.hits.append(self._hit_rate(seconds))
        events_per_second, requests_per_second = self._rates(seconds)
        answers = self._client.answers[:]
        swaps, latest = swaps_seen(answers), answers[-_LATEST_ANSWERS:]
        return View(
            seconds=seconds,
            impressions=len(self._events.impression_ids),
            examples=self._count.examples,
            learned=self.learned,
            events_per_second=events_per_second,
            lags=self._lags(),
            cache_hit_rate=self.hits[-1].rate,
            version=next((a.version for a in reversed(answers) if a.version), None),
            swaps=len(swaps),
            auc=self._auc(STUDENT, CONTROL),
            served_auc=self._auc(SERVED_STUDENT, SERVED_CONTROL),
            requests=len(answers),
            failed_requests=sum(a.fault is not None for a in answers),
            requests_per_second=requests_per_second,
            p50_ms=percentile_ms(latest, 0.5),
            p99_ms=percentile_ms(latest, 0.99),
            restarts=sum(self._supervisor.restarts().values()),
        )

    def _refresh(self) -> None:
        self._versions.refresh()
        for metrics in self._metrics.values():
            metrics.refresh()

    def _hit_rate(self, seconds: float) -> HitRate:
        logits = "graft_student_logits_total"
        learner = self._metrics[LEARNER]
        return HitRate(seconds, learner.total(logits, outcome="hit"), learner.total(logits))

    def _rates(self, seconds: float) -> tuple[float, float]:
        """Events that the stream read and requests, each per second over the latest looks."""
        now = (seconds, self._metrics[STREAM].total("graft_stream_records_total"), len(self._client.answers))
        before = self._paces[0]
        self._paces.append(now)
        elapsed = max(1e-9, now[0] - before[0])
        return (now[1] - before[1]) / elapsed, (now[2] - before[2]) / elapsed

    def _lags(self) -> dict[str, int | None]:
        rooms = {STREAM: "stream", TEACHER: "teacher", LEARNER: "student"}
        lags = {stage: self._metrics[stage].gauge(f"graft_{room}_lag_records") for stage, room in rooms.items()}
        return {stage: None if lag is None else int(lag) for stage, lag in lags.items()}

    def _auc(self, *arms: str) -> dict[str, tuple[float | None, ...]]:
        learner = self._metrics[LEARNER]
        name, whole = "graft_student_progressive_metric", {"metric": "auc", "slice": "whole"}
        return {
            task: tuple(learner.gauge(name, **whole, task=task, arm=arm) for arm in arms) for task in self._binary_tasks
        }
