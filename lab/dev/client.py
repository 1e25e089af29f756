"""A client that asks the scorer for scores all the time, as a product behind a load balancer does.

A request whose connection is refused or lost is sent again as soon as the scorer is ready; it has failed when that took
longer than the retry budget. Any reply but a 200 is a failure at once. The time of a request runs from its
first attempt to its answer.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from stream.events import ContextValue, EntityId

_RETRY_SECONDS = 10.0  # twice the time that a killed scorer takes to be ready again
_PAUSE_SECONDS = 0.05
_TIMEOUT_SECONDS = 5.0


class Answer(NamedTuple):
    """One request as the client saw it. `version` is None when it failed; `retries` counts lost connections."""

    at_seconds: float
    latency_ms: float
    version: str | None
    degraded: bool
    retries: int
    fault: str | None


class Counts(NamedTuple):
    """How many requests a client made, how many failed, the changes of version, and the last version that answered."""

    requests: int = 0
    failed: int = 0
    swaps: int = 0
    version: str | None = None

    def after(self, answer: Answer) -> "Counts":
        """The counts with one more request."""
        swapped = answer.version is not None and self.version not in (None, answer.version)
        failed, version = self.failed + (answer.fault is not None), answer.version or self.version
        return Counts(self.requests + 1, failed, self.swaps + swapped, version)


class ScorerConnection:
    """A keep-alive connection to the scorer on 127.0.0.1."""

    def __init__(self, port: int, *, retry_seconds: float = _RETRY_SECONDS) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        self._retry_seconds = retry_seconds

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            self._http.request("GET", "/readyz")
            reply = self._http.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            return False
        return reply.status == http.client.OK

    def score(self, question: Mapping[str, Any], started_at: float) -> Answer:
        """Ask for scores by the body of POST /score; `at_seconds` counts from `started_at` (of time.monotonic)."""
        began = time.monotonic()
        status, reply, retries = self._post(json.dumps(question), began + self._retry_seconds)
        latency_ms = (time.monotonic() - began) * 1e3
        if status == http.client.OK:
            scored = json.loads(reply)
            version, degraded, fault = scored["model_version"], scored["degraded"], None
        else:
            refused = "connection refused until the retry budget ended"
            version, degraded, fault = None, False, f"HTTP {status}: {reply[:200]!r}" if status else refused
        return Answer(began - started_at, latency_ms, version, degraded, retries, fault)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _post(self, body: str, give_up_at: float) -> tuple[int, bytes, int]:
        """Status, reply and retries; status 0 when no attempt reached the scorer in time."""
        retries = 0
        while True:
            try:
                self._http.request("POST", "/score", body, {"content-type": "application/json"})
                reply = self._http.getresponse()
                return reply.status, reply.read(), retries
            except (OSError, http.client.HTTPException):
                self._http.close()
            while not self.is_ready():
                if time.monotonic() > give_up_at:
                    return 0, b"", retries
                time.sleep(_PAUSE_SECONDS)
            retries += 1


class ScoringClient:
    """Asks for random known users and items from a thread, `per_second` times a second, once the scorer is ready.

    `contexts`: the context that each user is asked with. The answers' times count from `started_at` (of
    time.monotonic). `keep`: how many of the last answers stay; None: all. A context manager.
    """

    def __init__(
        self,
        port: int,
        contexts: Mapping[EntityId, Mapping[str, ContextValue]],
        items: Sequence[EntityId],
        *,
        per_second: float,
        items_each: int,
        started_at: float,
        keep: int | None = None,
    ) -> None:
        self._connection = ScorerConnection(port)
        self._users, self._items = list(contexts.items()), items
        self._started_at = started_at
        self._interval_seconds = 1.0 / per_second
        self._items_each = min(items_each, len(items))
        self._stop = threading.Event()
        self._random = random.Random(0)  # noqa: S311 - which user to ask for is no secret
        self._thread = threading.Thread(target=self._ask_until_stopped, name="scoring-client", daemon=True)
        self.answers: deque[Answer] = deque(maxlen=keep)
        """The last `keep` requests, in order; grows while the thread runs."""
        self.counts = Counts()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the thread after the request in flight."""
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _ask_until_stopped(self) -> None:
        while not self._connection.is_ready():
            if self._stop.wait(_PAUSE_SECONDS * 4):
                return
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            user_id, context = self._random.choice(self._users)
            items = self._random.sample(self._items, self._items_each)
            question = {"user_id": user_id, "item_ids": items, "context": dict(context)}
            answer = self._connection.score(question, self._started_at)
            self.answers.append(answer)
            self.counts = self.counts.after(answer)
            due = max(due + self._interval_seconds, time.monotonic())


class Swap(NamedTuple):
    """The first answer of a version that differs from the one before."""

    at_seconds: float
    version: str


def swaps_seen(answers: Sequence[Answer]) -> list[Swap]:
    """The changes of version in the order of the answers; the first version of all is no swap."""
    answered = [(a.at_seconds, a.version) for a in answers if a.version is not None]
    return [Swap(at, version) for (_, before), (at, version) in itertools.pairwise(answered) if version != before]


def percentile_ms(answers: Sequence[Answer], share: float) -> float | None:
    """The latency that `share` of the answered requests did not exceed; None without an answer."""
    latencies = [a.latency_ms for a in answers if a.fault is None]
    return float(np.quantile(latencies, share, method="higher")) if latencies else None
