"""The batch scorer: fills the teacher cache from the teacher requests while the stream runs.

At least once: offsets are committed only when the logits are in Redis, and putting a logit twice changes nothing.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from runtime.errors import ServiceUnavailableError
from runtime.health import HEALTH
from runtime.outage import Outage, StoppedError, wait_for
from runtime.telemetry import StopSignal
from runtime.tracing import TRACING
from stream.events import TeacherRequest
from teacher_cache.cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.request_scorer import BATCH_ROWS, RequestScorer, ScoredRows
from teacher_cache.profiles import ProfileScorer

if TYPE_CHECKING:
    from stream.log.requests import TeacherRequestReader

_T = TypeVar("_T")
EVERY_SECONDS = 1.0  # between the starts of two passes: rows that come meanwhile share a run of the teacher
_POLL_SECONDS = 0.2  # a stop is noticed this soon
_LARGE_LAG = 8 * BATCH_ROWS  # from here on every other batch is of the newest requests
_PASS_BATCHES = 64  # a long backlog is worked off in passes of that many batches, so that the lag metric moves
_LOG_SECONDS = 5.0
_MOST_AHEAD = 500_000
"""Ids that are remembered, about 100 MB; a forgotten one is scored again, which changes nothing."""
_LOOP = "scoring"
_NOTHING_LOST = "waiting for it, no request is lost"

_LOG = logging.getLogger(__name__)
_SCORED = Counter("graft_teacher_scored_rows", "Rows whose logits were put into the cache.")
_FRESH = Counter("graft_teacher_fresh_rows", "Requests whose row kept its logit, by teacher.refresh_seconds.")
_AHEAD = Counter("graft_teacher_ahead_rows", "Rows scored before their turn, because the scorer lagged.")
_WAITED = Gauge("graft_teacher_oldest_waiting_seconds", "How long the oldest request of the last batch had waited.")
_LAG = Gauge("graft_teacher_lag_records", "Teacher requests that wait.")
_DEFAULTED = Gauge("graft_teacher_defaulted_input_share", "Share of teacher inputs without a target counterpart.")
_PASS_SECONDS = Histogram("graft_teacher_pass_seconds", "One pass of the batch scorer that scored something.")


def run_batch_scorer(
    reader: "TeacherRequestReader",
    scorer: RequestScorer,
    cache: LogitCache,
    config: TeacherConfig,
    stop: StopSignal,
    profiles: ProfileScorer | None = None,
) -> None:
    """Every second score all that waits, until `stop`.

    With `profiles`, then some of those that are due; while there are more, the next pass starts at once. Waits while
    Redis, Kafka or the teacher is away, without losing a request. While it lags, every other batch is of the newest
    requests: their logits come in time for the learner, and those before them still come in their turn. A request that
    the teacher cannot score becomes a dead letter. ConfigurationError: a request of another feature spec.
    """
    _DEFAULTED.set(scorer.defaulted_share)
    batches = _Pass(reader, scorer, cache, config.refresh_seconds, profiles, stop)
    report = _Report(scorer.defaulted_share)
    kafka = Outage("kafka", _NOTHING_LOST)
    HEALTH.begin(_LOOP)
    while not stop.is_set():
        started = time.monotonic()
        try:
            drained = batches.score_pending(report) and not batches.refresh_profiles()
            report.log_sometimes(reader.lag())
        except ServiceUnavailableError as error:  # of Kafka; the next commit covers what was put
            stop.wait(kafka.failed(error))
        else:
            kafka.ended()
            HEALTH.round_ended(_LOOP)
            if drained:
                stop.wait(max(0.0, started + EVERY_SECONDS - time.monotonic()))


class _Pass:
    """Scores what waits, batch by batch."""

    def __init__(
        self,
        reader: "TeacherRequestReader",
        scorer: RequestScorer,
        cache: LogitCache,
        refresh_seconds: float,
        profiles: ProfileScorer | None,
        stop: StopSignal,
    ) -> None:
        self._refresh_seconds = refresh_seconds
        self._ahead = ScoredAhead()
        self._reader = reader
        self._scorer = scorer
        self._cache = cache
        self._profiles = profiles
        self._stop = stop
        self._redis = Outage("redis", _NOTHING_LOST)
        self._kafka = Outage("kafka", _NOTHING_LOST)
        self._teacher = Outage("teacher", "the same call is made again, no request is lost")
        self._profile_redis = Outage("profiles", "profiles are tried again with the next pass", stops_work=False)

    def score_pending(self, report: "_Report") -> bool:
        """Whether nothing waits any more; False after `_PASS_BATCHES`."""
        started = time.monotonic()
        lags = self._reader.lag() > _LARGE_LAG
        for batches in range(_PASS_BATCHES):
            if lags and not self._score(self._reader.newest(BATCH_ROWS), report, ahead=True):
                return True
            requests = self._reader.poll(_POLL_SECONDS, BATCH_ROWS)
            _WAITED.set(self._reader.waited_seconds)
            if not requests or self._stop.is_set():
                if batches:
                    _PASS_SECONDS.observe(time.monotonic() - started)
                return True
            with TRACING.batch("score requests", len(requests), self._reader.traceparents):
                may_commit = self._score(self._ahead.take(requests), report)
            if not may_commit:
                return True
            self._reader.commit()
            HEALTH.round_ended(_LOOP)  # a slow teacher's pass over a backlog takes longer than the bound
        _PASS_SECONDS.observe(time.monotonic() - started)
        return False

    def refresh_profiles(self) -> bool:
        """Score some profiles that are due; whether there were any."""
        return self._profiles is not None and bool(self._try(self._profiles.refresh))

    def _try(self, attempt: Callable[[], _T]) -> _T | None:
        """What `attempt` gives; None without Redis, or where a key is in the way: no logit waits for a profile."""
        try:
            result = attempt()
        except ServiceUnavailableError as error:
            self._profile_redis.failed(error)
            return None
        self._profile_redis.ended()
        return result

    def _score(self, requests: Sequence[TeacherRequest], report: "_Report", *, ahead: bool = False) -> bool:
        """Whether all of it may be committed; False when a stop was asked for while something was away.

        `ahead`: before their turn; what the teacher refuses is set aside when that comes.
        """
        try:
            scored = wait_for(partial(self._scorer.score, self._due(requests)), self._teacher, self._stop)
            if scored is not None:
                scored_at_ms = time.time_ns() // 1_000_000
                keys = self._cache.keys_of(scored.requests)
                put = partial(self._cache.put, keys, scored.logit_BT, scored_at_ms)
                wait_for(put, self._redis, self._stop)
                if ahead:
                    self._ahead.add(scored.requests)
                    _AHEAD.inc(len(scored.requests))
                elif scored.refused:
                    wait_for(partial(self._reader.set_aside, scored.refused), self._kafka, self._stop)
                report.add(scored)
        except StoppedError:
            return False
        if self._profiles is not None and requests:
            self._try(partial(self._profiles.ask, requests))
        return True

    def _due(self, requests: Sequence[TeacherRequest]) -> Sequence[TeacherRequest]:
        """Those that have no logit that is young enough."""
        if not (self._refresh_seconds and requests):
            return requests
        get = partial(self._cache.get, self._cache.keys_of(requests))
        age_seconds_B = wait_for(get, self._redis, self._stop).age_seconds_B
        due = [
            r for r, age in zip(requests, age_seconds_B, strict=True) if not age < self._refresh_seconds
        ]  # NaN: none
        _FRESH.inc(len(requests) - len(due))
        return due


class _Report:
    """The metrics, and one log line every few seconds of work."""

    def __init__(self, defaulted_share: float) -> None:
        self._defaulted_share = defaulted_share
        self._logged_at = time.monotonic()
        self._rows = 0
        self._fallen_back = 0.0

    def add(self, scored: ScoredRows) -> None:
        _SCORED.inc(len(scored.requests))
        self._rows += len(scored.requests)
        self._fallen_back += scored.fallback_share * len(scored.requests)

    def log_sometimes(self, lag: int) -> None:
        _LAG.set(lag)
        if not self._rows or time.monotonic() - self._logged_at < _LOG_SECONDS:
            return
        _LOG.info(
            "scored rows=%d per_second=%.0f lag=%d defaulted_inputs=%.2f fell_back=%.3f",
            self._rows,
            self._rows / (time.monotonic() - self._logged_at),
            lag,
            self._defaulted_share,
            self._fallen_back / self._rows,
        )
        self._logged_at = time.monotonic()
        self._rows = 0
        self._fallen_back = 0.0


class ScoredAhead:
    """Which requests this process scored before their turn, so that it does not score them again when it comes."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, requests: Iterable[TeacherRequest]) -> None:
        """Remember them; the oldest are forgotten where they are too many."""
        self._ids |= dict.fromkeys(request.impression_id for request in requests)
        while len(self._ids) > _MOST_AHEAD:
            del self._ids[next(iter(self._ids))]

    def take(self, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """Those of `requests`, whose turn it is, that were not scored ahead; forgets the others."""
        if not self._ids:
            return list(requests)
        ahead = {request.impression_id for request in requests} & self._ids.keys()
        for impression_id in ahead:
            del self._ids[impression_id]
        return [request for request in requests if request.impression_id not in ahead]
