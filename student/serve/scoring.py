"""The scores of one request by one version: read the features, encode, score; and a sample of the rows is kept.

The sample is compared with what is learnt of the same impressions. A hash of the impression's id decides, so all
scorers keep the same rows. Nobody waits for it: a row that cannot be written is counted and dropped.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import mmh3
import numpy as np
from prometheus_client import Counter

from features.online.async_reader import RequestRows
from features.online.served_rows import ServedRow, set_command
from stream.events import EntityId
from student.serve.requests import Explanation, ScoreRequest, explanation_of
from student.serve.swap import Serving
from student.versions.numpy_model import ITEM_PLACE, USER_PLACE, Places, Scores

DEGRADED = Counter("graft_scorer_degraded_total", "Replies for which Redis did not answer")
UNKNOWN = Counter(
    "graft_scorer_unknown_ids_total", "Users and items of requests of which no label is remembered", ["of"]
)
_UNKNOWN_USER, _UNKNOWN_ITEM = UNKNOWN.labels("user"), UNKNOWN.labels("item")
SAMPLED = Counter("graft_scorer_sampled_rows_total", "Served rows that were to be kept for the learner", ["outcome"])

_MOST_WAITING = 64
"""Requests whose rows are being written; more are dropped."""

_MOST_ROWS_A_SECOND = 20
"""More are dropped: a client chooses the ids of its impressions, and so how many of them the hash takes. For an hour's
window these are 144,000 rows at a time, some 100 MB of Redis."""

_GRACE_SECONDS = 3_600
"""How long rows wait beyond the longest attribution window: for a learner that lags."""

_PASS_SECONDS = 0.004  # of computing in one pass of the event loop


class ComputeBudget:
    """Bounds the computing of requests in one pass of the event loop; the rest wait for later passes, in their order.

    Without that all requests whose features have arrived are computed in one pass, and every other one, a refusal too,
    waits for all of them.
    """

    def __init__(self) -> None:
        self._end: float | None = None
        """By time.monotonic: when no further request begins in this pass; None where none has computed in it."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when this request may compute: at once, unless those before it have taken the pass' time."""
        loop = asyncio.get_running_loop()
        if self._waiting or (self._end is not None and time.monotonic() >= self._end):
            waiting = loop.create_future()
            self._waiting.append(waiting)
            await waiting
        if self._end is None:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._end = None
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # done: its request was cancelled
                waiting.set_result(None)
                break
        if self._waiting:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)


class Sampler:
    """Keeps `share` of the rows whose impression is named. Belongs to one event loop."""

    def __init__(self, share: float) -> None:
        self._bound = round(share * 2**32)
        self._second = 0
        """By time.monotonic(), in which the last rows were taken."""
        self._left = 0
        """Rows that may be taken in it."""
        self._writing: set[asyncio.Task[None]] = set()

    def takes(self, impression_id: str) -> bool:
        """Whether rows of this impression are sampled."""
        return mmh3.hash(impression_id.encode("utf-8", "surrogatepass"), signed=False) < self._bound

    def take(self, serving: Serving, request: ScoreRequest, rows: RequestRows, request_id: str | None) -> None:
        """Begin to write those of the rows that are sampled."""
        named = zip(request.get("impression_ids", ()), request["item_ids"], strict=False)
        chosen = {row: impression for row, (impression, _) in enumerate(named) if impression and self.takes(impression)}
        taken = dict(islice(chosen.items(), self._room()))
        self._left -= len(taken)
        if len(taken) < len(chosen):
            SAMPLED.labels("dropped").inc(len(chosen) - len(taken))
        if not taken:
            return
        task = asyncio.create_task(_write(serving, request, rows, taken, request_id, time.time_ns() // 1_000_000))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _room(self) -> int:
        """How many rows may be taken now."""
        if self._second != (now := _now()):
            self._second, self._left = now, _MOST_ROWS_A_SECOND
        return self._left if len(self._writing) < _MOST_WAITING else 0

    async def close(self) -> None:
        """Wait for what is being written, each as long as a read may take."""
        while self._writing:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self._writing)


async def _write(
    serving: Serving,
    request: ScoreRequest,
    rows: RequestRows,
    chosen: Mapping[int, str],
    request_id: str | None,
    served_at_ms: int,
) -> None:
    items = [request["item_ids"][row] for row in chosen]
    dated, _ = await serving.reader.read_dated(request["user_id"], items, {})
    ttl_seconds = _GRACE_SECONDS + round(max(task.window_seconds for task in serving.manifest.tasks))
    commands = []
    for place, (row, impression_id) in enumerate(chosen.items()):
        begins = {view: begins_ms[place] for view, begins_ms in dated.begins_ms.items()}
        served = ServedRow(
            request_id=request_id,
            version=serving.version,
            served_at_ms=served_at_ms,
            spec_id=serving.spec.spec_id,
            dense_D=rows.batch.dense_BD[row],
            categorical_C=rows.batch.categorical_BC[row],
            begins_ms={view: begin_ms for view, begin_ms in begins.items() if begin_ms is not None},
        )
        commands.append(set_command(serving.spec.feast_project, impression_id, served, ttl_seconds))
    outcome = "kept" if await serving.reader.write(commands) else "dropped"
    SAMPLED.labels(outcome).inc(len(chosen))


def _now() -> int:
    return int(time.monotonic())


class Scored(NamedTuple):
    """Of one version. `degraded`: Redis did not answer, and stored features that are not in memory took defaults."""

    item_ids: Sequence[EntityId]
    scores: Scores
    degraded: bool
    explanation: Explanation | None


class Scoring:
    """Answers requests; `sampler` keeps some of the rows."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._budget = ComputeBudget()

    async def score(self, serving: Serving, request: ScoreRequest, request_id: str | None) -> Scored:
        """Score the items of a request for its user."""
        if request.get("explain"):
            return await self._explained(serving, request, request_id)
        rows = await serving.reader.read(request["user_id"], request["item_ids"], request.get("context", {}))
        await self._budget.wait()
        serving.recent.append(rows)
        place_BX = serving.places.of(rows)
        scores = self._scores(serving, request, rows, place_BX, request_id)
        return Scored(request["item_ids"], scores, rows.degraded, None)

    async def _explained(self, serving: Serving, request: ScoreRequest, request_id: str | None) -> Scored:
        """The same of what Redis has now, which the explanation shows."""
        user_id, item_ids = request["user_id"], request["item_ids"]
        dated, degraded = await serving.reader.read_dated(user_id, item_ids, request.get("context", {}))
        await self._budget.wait()
        batch = serving.spec.encode(dated.columns, len(item_ids))
        place_BX = serving.student.places(batch.categorical_BC)
        nowhere_B = np.zeros(len(item_ids), np.intp)
        rows = RequestRows(batch, nowhere_B, nowhere_B, degraded)
        scores = self._scores(serving, request, rows, place_BX, request_id)
        known_BX = place_BX > 0
        explanation = explanation_of(
            serving.spec,
            dated,
            item_ids,
            user_known=bool(known_BX[0, USER_PLACE]),
            known_B=known_BX[:, ITEM_PLACE].tolist(),
        )
        return Scored(item_ids, scores, degraded, explanation)

    def _scores(
        self, serving: Serving, request: ScoreRequest, rows: RequestRows, place_BX: Places, request_id: str | None
    ) -> Scores:
        if rows.degraded:
            DEGRADED.inc()
        if place_BX[0, USER_PLACE] == 0:
            _UNKNOWN_USER.inc()
        if items := len(place_BX) - int(np.count_nonzero(place_BX[:, ITEM_PLACE])):
            _UNKNOWN_ITEM.inc(items)
        if "impression_ids" in request:
            self._sampler.take(serving, request, rows, request_id)
        return serving.student.score_at(rows.batch.dense_BD, place_BX)
