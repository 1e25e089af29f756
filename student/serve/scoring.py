"""The scores of one request by one version: read the features, encode, score."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter

from features.async_reader import RequestRows
from stream.events import EntityId
from student.serve.reply import Explanation, explanation_of
from student.serve.requests import ScoreRequest
from student.serve.sampling import Sampler
from student.serve.swap import Serving
from student.versions.numpy_model import ITEM_PLACE, USER_PLACE, Places, Scores

_PASS_SECONDS = 0.004


class Turns:
    """Bounds what is computed in one pass of the event loop; what is left waits for the next ones, first come first.

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
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        if self._end is None:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._end = None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # done: its request was cancelled
                turn.set_result(None)
                break
        if self._waiting:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)


DEGRADED = Counter("graft_scorer_degraded_total", "Replies for which Redis did not answer")
UNKNOWN = Counter(
    "graft_scorer_unknown_ids_total", "Users and items of requests of which no label is remembered", ["of"]
)
_UNKNOWN_USER, _UNKNOWN_ITEM = UNKNOWN.labels("user"), UNKNOWN.labels("item")


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
        self._turns = Turns()

    async def score(self, serving: Serving, request: ScoreRequest, request_id: str | None) -> Scored:
        """Score the items of a request for its user."""
        if request.get("explain"):
            return await self._explained(serving, request, request_id)
        rows = await serving.reader.read(request["user_id"], request["item_ids"], request.get("context", {}))
        await self._turns.wait()
        serving.recent.append(rows)
        place_BX = serving.places.of(rows)
        scores = self._scores(serving, request, rows, place_BX, request_id)
        return Scored(request["item_ids"], scores, rows.degraded, None)

    async def _explained(self, serving: Serving, request: ScoreRequest, request_id: str | None) -> Scored:
        """The same of what Redis has now, which the explanation shows."""
        user_id, item_ids = request["user_id"], request["item_ids"]
        dated, degraded = await serving.reader.read_dated(user_id, item_ids, request.get("context", {}))
        await self._turns.wait()
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
