"""Keeps a share of the rows that are served in Redis, for the learner to compare with the examples of the impressions.

A hash of the impression's id decides, so all scorers keep the same ones. Nobody waits for it: a row that cannot be
written is counted and dropped.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice

import mmh3
from prometheus_client import Counter

from features.async_reader import RequestRows
from features.served_rows import ServedRow, set_command
from student.serve.requests import ScoreRequest
from student.serve.swap import Serving

SAMPLED = Counter("graft_scorer_sampled_rows_total", "Served rows that were to be kept for the learner", ["outcome"])

_MOST_WAITING = 64
"""Requests whose rows are being written; more are dropped."""

_MOST_ROWS_A_SECOND = 20
"""More are dropped: a client chooses the ids of its impressions, and so how many of them the hash takes. For an hour's
window these are 144,000 rows at a time, some 100 MB of Redis."""

_GRACE_SECONDS = 3_600
"""How long rows wait beyond the longest attribution window: for a learner that lags."""


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
        chosen = {row: one for row, (one, _) in enumerate(named) if one is not None and self.takes(one)}
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
