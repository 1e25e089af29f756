"""A client of the scoring endpoint, for programs that want scores: `ScorerClient`, and `AsyncScorerClient` for asyncio.

Needs httpx (``pip install 'graft[client]'``) and loads nothing else of graft, neither torch nor Feast nor Kafka::

    with ScorerClient("http://127.0.0.1:8080") as scorer:
        found = scorer.score(196, [242, 51, 465], context={"hour": 21})
        best = max(zip(found.scores["like"], found.item_ids))
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Self

import httpx

Id = int | str
"""Of a user or an item, as the project has them."""

_RETRIED = (429, 502, 503, 504)
_FIRST_WAIT = 0.02  # seconds; each later one is twice as long, and up to as much is drawn at random
_LONGEST_WAIT = 1.0


class Scores(NamedTuple):
    """A reply: one version's scores of the items that were asked for."""

    model_version: str
    degraded: bool
    """Redis did not answer in time: stored features took their defaults."""
    item_ids: list[Id]
    scores: dict[str, list[float | None]]
    """Task -> a score per item, in the order of `item_ids`; None where the model overflowed."""
    explanation: Mapping[str, Any] | None = None
    """How the scores came about, where that was asked for; docs/serving.md has its fields."""


class ScorerError(Exception):
    """No scores; the message says why."""


class RequestRefusedError(ScorerError):
    """The request was wrong, and would be so again. `faults`: field, value, allowed and message of each."""

    def __init__(self, status: int, faults: Sequence[Mapping[str, Any]], message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.faults = faults


class ScorerUnavailableError(ScorerError):
    """The scorer could not be reached or could not answer, in all tries or until the deadline."""


class ScorerClient:
    """Keeps up to `connections` open; may be shared by threads. Close it, or use it in a ``with``.

    `timeout_seconds`: until a score is there or the call fails, all tries together. A try that fails for a reason that
    may pass (no connection, a connection that broke, 429, 502, 503, 504) is made again up to `retries` times, after
    what Retry-After says or a short random time, as long as the deadline is not before that.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 1.0,
        retries: int = 2,
        connections: int = 20,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**_settings(url, token, connections), transport=transport)
        self._timeout_seconds, self._retries = timeout_seconds, retries

    def score(  # noqa: PLR0913 - by keyword: one for each field of a request
        self,
        user_id: Id,
        item_ids: Sequence[Id],
        *,
        context: Mapping[str, Any] | None = None,
        version: str | None = None,
        impression_ids: Sequence[str | None] | None = None,
        explain: bool = False,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Scores:
        """The scores of these items for the user, by the champion or by `version`. ScorerError when there are none.

        `impression_ids`: of the items' impressions, for a comparison with what is learnt. `explain`: also how the
        scores came about. `headers`: sent too, such as the traceparent of the caller's trace.
        """
        tries = _Tries(timeout_seconds, self._timeout_seconds, self._retries)
        body = _body(user_id, item_ids, context, version, impression_ids, explain=explain)
        exchange = _exchange(self._post, _sleep, tries, body, _headers(request_id, headers))
        while True:
            try:
                exchange.send(None)  # to its end at once: what it awaits blocks
            except StopIteration as ended:
                scores: Scores = ended.value
                return scores

    async def _post(self, url: str, **request: Any) -> httpx.Response:
        """Blocks; never suspends."""
        return self._http.post(url, **request)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class AsyncScorerClient:
    """As ScorerClient, for asyncio: use it in an ``async with``, or ``await`` its `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 1.0,
        retries: int = 2,
        connections: int = 20,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**_settings(url, token, connections), transport=transport)
        self._timeout_seconds, self._retries = timeout_seconds, retries

    async def score(  # noqa: PLR0913 - as above
        self,
        user_id: Id,
        item_ids: Sequence[Id],
        *,
        context: Mapping[str, Any] | None = None,
        version: str | None = None,
        impression_ids: Sequence[str | None] | None = None,
        explain: bool = False,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Scores:
        """As ScorerClient.score."""
        tries = _Tries(timeout_seconds, self._timeout_seconds, self._retries)
        body = _body(user_id, item_ids, context, version, impression_ids, explain=explain)
        return await _exchange(self._http.post, asyncio.sleep, tries, body, _headers(request_id, headers))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


async def _exchange(
    post: Callable[..., Awaitable[httpx.Response]],
    sleep: Callable[[float], Awaitable[None]],
    tries: "_Tries",
    body: Mapping[str, Any],
    headers: Mapping[str, str],
) -> Scores:
    """One call of either client: all its tries, by what `post` and `sleep` are. It waits for nothing else."""
    while True:
        try:
            response = await post("/score", json=body, headers=headers, extensions={"timeout": tries.times})
        except httpx.RequestError as error:
            seconds = tries.wait_after(error)
        else:
            if response.status_code not in _RETRIED:
                return _scores(response)
            seconds = tries.wait_after(response)
        await sleep(seconds)


async def _sleep(seconds: float) -> None:
    """Blocks; never suspends."""
    time.sleep(seconds)  # noqa: ASYNC251 - for ScorerClient, which has no loop


class _TimesLeft(dict[str, float]):
    """What httpx asks for how long each part of a request may take: all until one deadline, by time.monotonic()."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def get(self, _part: object, _default: object = None) -> float:
        """Seconds from now on."""
        return max(self._deadline - time.monotonic(), 0.001)


class _Tries:
    """How long one call may take, and when it tries again."""

    def __init__(self, seconds: float | None, default_seconds: float, retries: int) -> None:
        self._deadline = time.monotonic() + (default_seconds if seconds is None else seconds)
        self._retries = retries
        self._failed = 0
        self.times = _TimesLeft(self._deadline)
        """Of a try: to wait for a free connection, to connect, to write and to read."""

    def wait_after(self, failure: httpx.Response | httpx.RequestError) -> float:
        """The seconds before the next try; ScorerUnavailableError when there is none."""
        self._failed += 1
        seconds: float = min(_FIRST_WAIT * 2 ** (self._failed - 1), _LONGEST_WAIT) * random.uniform(1, 2)  # noqa: S311
        if isinstance(failure, httpx.Response):
            seconds = max(seconds, _retry_after(failure.headers.get("retry-after", "")))
            why = f"{failure.status_code}: {_message(failure)}"
        else:
            why = f"{type(failure).__name__}: {failure}"
        if self._failed > self._retries:
            raise ScorerUnavailableError(f"no scores after {self._failed} tries; the last one: {why}")
        if seconds >= self._deadline - time.monotonic():
            raise ScorerUnavailableError(f"no scores before the deadline, try {self._failed}: {why}")
        return seconds


def _settings(url: str, token: str | None, connections: int) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return {"base_url": url, "headers": headers, "limits": limits}


def _body(
    user_id: Id,
    item_ids: Sequence[Id],
    context: Mapping[str, Any] | None,
    version: str | None,
    impression_ids: Sequence[str | None] | None,
    *,
    explain: bool,
) -> dict[str, Any]:
    told = {
        "user_id": user_id,
        "item_ids": list(item_ids),
        "context": context,
        "version": version,
        "impression_ids": None if impression_ids is None else list(impression_ids),
        "explain": explain or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _headers(request_id: str | None, further: Mapping[str, str] | None) -> dict[str, str]:
    return {**(further or {}), **({} if request_id is None else {"x-request-id": request_id})}


def _retry_after(told: str) -> float:
    """Seconds of a Retry-After, which is a number or a date (RFC 9110, 10.2.3); 0 for what is neither, or is past."""
    if told.isdecimal():
        return float(told)
    try:
        return parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _scores(response: httpx.Response) -> Scores:
    if response.status_code == httpx.codes.OK:
        try:
            told = response.json()
            return Scores(**{name: told[name] for name in Scores._fields if name in told})  # a later release says more
        except (ValueError, TypeError):
            raise ScorerUnavailableError(f"what answered is no scorer: {response.text[:200]}") from None
    if 400 <= response.status_code < 500:
        raise RequestRefusedError(response.status_code, _faults(response), _message(response))
    raise ScorerUnavailableError(f"{response.status_code}: {_message(response)}")


def _faults(response: httpx.Response) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = _error(response).get("faults", [])
    return found


def _message(response: httpx.Response) -> str:
    return str(_error(response).get("message", response.text[:200]))


def _error(response: httpx.Response) -> Mapping[str, Any]:
    """What the scorer says; nothing of a proxy's own page."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
