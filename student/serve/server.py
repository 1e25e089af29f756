"""The scoring endpoint: Starlette on uvicorn, one process, one event loop.

A request: read the body, take the serving version once, parse, read the features, encode, score, reply. Nothing else
is on the way.
"""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.connections import DEFAULT_LIMITS, Limits, check_open_files, limited_protocol
from student.serve.reply import ScoreReply
from student.serve.requests import (
    MAX_BODY_BYTES,
    VERSION_ALLOWED,
    RequestError,
    ScoreRequest,
    refusal,
    version_named_in,
)
from student.serve.swap import ChampionSwap, Serving
from student.serve.tokens import Tokens
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

REQUESTS = Counter("graft_scorer_requests_total", "Replies of /score", ["status"])
DEGRADED = Counter("graft_scorer_degraded_total", "Replies from default features because Redis did not answer")
SECONDS = Histogram(
    "graft_scorer_request_seconds",
    "From the request's head to the finished reply, by the server's clock",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0),
)

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10  # for requests in flight at SIGTERM; below the 30 s after which orchestrators kill
_KEEP_ALIVE_SECONDS = 75  # above the idle limit of common client pools, so that the client closes first
_RETRY_AFTER_SECONDS = "1"
_LONGEST_LENGTH = 10  # digits of a body's length that are looked at


class Scorer:
    """The endpoints of one process, answering with `swap`'s version until `stop` is set."""

    def __init__(self, swap: ChampionSwap, stop: StopSignal, limits: Limits, tokens: Tokens | None) -> None:
        self._swap = swap
        self._stop = stop
        self._limits = limits
        self._tokens = tokens
        self._under_way = 0

    async def score(self, request: Request) -> Response:
        """POST /score: the served tasks' scores of the items for the user."""
        start = time.perf_counter()
        try:
            response = await self._scored(request)
        except RequestError as error:
            response = _error_reply(error)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it; nginx' number for a client that went away
        SECONDS.observe(time.perf_counter() - start)
        REQUESTS.labels(str(response.status_code)).inc()
        return response

    async def healthz(self, _request: Request) -> Response:
        """GET /healthz: 200 while the process lives."""
        return _reply(200, {"status": "alive"})

    async def readyz(self, _request: Request) -> Response:
        """GET /readyz: 200 when /score can answer."""
        reason = self._not_ready()
        if reason or self._swap.current is None:
            return _reply(503, {"status": "not ready", "reason": reason})
        return _reply(200, {"status": "ready", "model_version": self._swap.current.version})

    async def metrics(self, _request: Request) -> Response:
        """GET /metrics: Prometheus text."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def _not_ready(self) -> str:
        if self._stop.is_set():
            return "the process is stopping"
        return "" if self._swap.current else "no version is loaded; the learner has not published one yet"

    async def _scored(self, request: Request) -> Response:
        if self._tokens and not self._tokens.allow(request.headers.get("authorization")):
            return _unauthorized()
        body = await _body(request)
        if self._under_way >= self._limits.requests:
            return _unavailable(f"{self._limits.requests} requests are under way, and no more are taken at a time")
        self._under_way += 1
        try:
            return await self._answer(body)
        finally:
            self._under_way -= 1

    async def _answer(self, body: bytes) -> Response:
        serving = self._swap.current  # once: the whole reply is this version's
        if serving is None:
            return _unavailable(self._not_ready())
        if name := version_named_in(body):
            try:
                serving = await self._swap.named(name)
            except VersionError as error:
                raise refusal(422, "version", name, VERSION_ALLOWED, str(error)) from None
        return _reply(200, await _scores(serving, serving.contract.parse(body)))


async def _scores(serving: Serving, request: ScoreRequest) -> ScoreReply:
    item_ids = request["item_ids"]
    columns, degraded = await serving.reader.read(request["user_id"], item_ids, request.get("context", {}))
    scores = serving.student.score(serving.spec.encode(columns, len(item_ids)))
    if degraded:
        DEGRADED.inc()
    return {
        "model_version": serving.version,
        "degraded": degraded,
        "item_ids": item_ids,
        "scores": {task: score_B.tolist() for task, score_B in scores.items()},
    }


async def _body(request: Request) -> bytes:
    """The body; RequestError 413 above MAX_BODY_BYTES, as soon as that is known."""
    declared = request.headers.get("content-length", "").lstrip("0")
    if declared.isdecimal() and (len(declared) > _LONGEST_LENGTH or int(declared) > MAX_BODY_BYTES):
        raise _too_large(int(declared[:_LONGEST_LENGTH]))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(len(body))
    return bytes(body)


def _too_large(size: int) -> RequestError:
    allowed = f"a body of at most {MAX_BODY_BYTES} bytes"
    return refusal(413, "", size, allowed, f"the body has {size} bytes or more; allowed is {allowed}")


def _reply(status: int, content: Mapping[str, Any]) -> Response:
    # A score that is no number (features overflowed) is null: NaN is not JSON.
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


def _unavailable(reason: str) -> Response:
    allowed = f"the same request after {_RETRY_AFTER_SECONDS} s, when /readyz says 200"
    return _error_reply(refusal(503, "", None, allowed, reason), {"retry-after": _RETRY_AFTER_SECONDS})


def _unauthorized() -> Response:
    allowed = "Authorization: Bearer TOKEN, with a token of GRAFT_HTTP_TOKENS_FILE"
    message = f"this request has no token that is allowed; allowed is {allowed}"
    return _error_reply(refusal(401, "authorization", None, allowed, message), {"www-authenticate": "Bearer"})


def _error_reply(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    content = {"error": {**error.faults[0], "faults": error.faults}}
    body = to_json(content, inf_nan_mode="strings")
    return Response(body, error.status, headers, media_type="application/json")


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}; allowed is {allowed}"
        return _error_reply(refusal(405, "method", request.method, allowed, message), dict(error.headers or {}))
    allowed = "POST /score, GET /healthz, GET /readyz, GET /metrics"
    message = f"there is no {request.url.path}; allowed is {allowed}"
    return _error_reply(refusal(error.status_code, "path", request.url.path, allowed, message))


async def _failed(_request: Request, error: Exception) -> Response:
    """The reply to our own fault; uvicorn logs the traceback."""
    REQUESTS.labels("500").inc()
    message = f"the scorer failed ({type(error).__name__}); its log says why"
    return _error_reply(refusal(500, "", None, "a retry", message))


def build_app(
    swap: ChampionSwap, stop: StopSignal, limits: Limits = DEFAULT_LIMITS, tokens: Tokens | None = None
) -> Starlette:
    """The ASGI application; its lifespan follows the champion. Without `tokens` anyone may ask."""
    scorer = Scorer(swap, stop, limits, tokens)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(swap.watch())
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await swap.close()

    routes = [
        Route("/score", scorer.score, methods=["POST"]),
        Route("/healthz", scorer.healthz),
        Route("/readyz", scorer.readyz),
        Route("/metrics", scorer.metrics),
    ]
    return Starlette(
        routes=routes, exception_handlers={HTTPException: _not_routed, Exception: _failed}, lifespan=lifespan
    )


class _Server(uvicorn.Server):
    """uvicorn, ended by the process' StopSignal instead of signal handlers of its own."""

    def __init__(self, config: uvicorn.Config, stop: StopSignal) -> None:
        super().__init__(config)
        self._stop = stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """No signal handlers."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        self.should_exit = self.should_exit or self._stop.is_set()
        return await super().on_tick(counter)


def run_server(
    registry: Registry,
    redis_url: str,
    host: str,
    port: int,
    stop: StopSignal,
    limits: Limits = DEFAULT_LIMITS,
    tokens: Tokens | None = None,
) -> None:
    """Serve `registry`'s champion at http://host:port until `stop` is set and the requests in flight are answered.

    Needs neither a version nor Redis to start: it is not ready before the first, and answers from default features
    without the second. GraftError when the port cannot be had, or this process may open too few files.
    """
    check_open_files(limits)
    app = build_app(ChampionSwap(registry, redis_url), stop, limits, tokens)
    config = uvicorn.Config(
        app,
        http=limited_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    listener = _listen(host, port)
    _log.info("serving http://%s:%d", host, listener.getsockname()[1])
    server = _Server(config, stop)
    server.run(sockets=[listener])
    if not server.started:
        raise GraftError("the scorer could not start; the log lines above say why")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise GraftError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another one with --host and --port"
        ) from None
