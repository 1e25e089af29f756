"""The scoring endpoint of one process: Starlette on uvicorn, one event loop.

A request: read the body, take the serving version once, parse, read the features, encode, score, reply. Nothing else
is on the way.
"""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.admission import Admission, unavailable
from student.serve.connections import DEFAULT_LIMITS, Limits, check_open_files, limited_protocol
from student.serve.inference_server import Endpoint, InferenceProtocol
from student.serve.openapi import openapi_of
from student.serve.reply import ScoreReply
from student.serve.request_id import request_id_of
from student.serve.requests import (
    VERSION_ALLOWED,
    RequestError,
    refusal,
    version_named_in,
)
from student.serve.sampling import Sampler
from student.serve.scoring import Scored, Scoring
from student.serve.swap import ChampionSwap
from student.serve.tokens import Tokens
from student.versions.version_folder import VersionError

REQUESTS = Counter("graft_scorer_requests_total", "Replies of /score", ["status"])
SECONDS = Histogram(
    "graft_scorer_request_seconds",
    "From the request's head to the finished reply, by the server's clock",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0),
)

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 10  # for requests in flight at SIGTERM; below the 30 s after which orchestrators kill
_SWITCH_SECONDS = 0.0005  # after which the thread that loads a version lets a request go on; Python's own is 0.005
_KEEP_ALIVE_SECONDS = 75  # above the idle limit of common client pools, so that the client closes first


class Scorer:
    """The endpoints of one process, answering with `swap`'s version until `stop` is set."""

    def __init__(
        self, swap: ChampionSwap, scoring: Scoring, stop: StopSignal, admission: Admission, release: str
    ) -> None:
        self._swap = swap
        self._scoring = scoring
        self._stop = stop
        self._admission = admission
        self._release = release

    async def score(self, request: Request) -> Response:
        """POST /score: the served tasks' scores of the items for the user."""
        async with self._admission.admitted(request) as body:
            serving = self._swap.current  # once: the whole reply is this version's
            if serving is None:
                raise unavailable(self._not_ready())
            if name := version_named_in(body):
                try:
                    serving = await self._swap.named(name)
                except VersionError as error:
                    raise refusal(422, "version", name, VERSION_ALLOWED, str(error)) from None
            checked = serving.contract.parse(body)
            scored = await self._scoring.score(serving, checked, request_id_of(request))
            return _reply(200, _told(serving.version, scored))

    async def healthz(self, _request: Request) -> Response:
        """GET /healthz: 200 while the process lives."""
        return _reply(200, {"status": "alive"})

    async def readyz(self, _request: Request) -> Response:
        """GET /readyz: 200 when /score can answer."""
        reason = self._not_ready()
        if reason or self._swap.current is None:
            return _reply(503, {"status": "not ready", "reason": reason})
        return _reply(200, {"status": "ready", "model_version": self._swap.current.version})

    async def openapi(self, _request: Request) -> Response:
        """GET /openapi.json: the endpoints, and what the version that serves takes."""
        spec = self._swap.current.spec if self._swap.current else None
        return _reply(200, openapi_of(self._release, spec, await asyncio.to_thread(self._swap.known)))

    async def metrics(self, _request: Request) -> Response:
        """GET /metrics: Prometheus text."""
        return Response(generate_latest(_counted()), media_type=CONTENT_TYPE_LATEST)

    def _not_ready(self) -> str:
        if self._stop.is_set():
            return "the process is stopping"
        return "" if self._swap.current else "no version is loaded; the learner has not published one yet"


def timed(endpoint: Endpoint, error_reply: Callable[[RequestError], Response]) -> Endpoint:
    """`endpoint`, counted and timed as a request for scores; its errors as `error_reply` has them."""

    async def answer(request: Request) -> Response:
        start = time.perf_counter()
        try:
            response = await endpoint(request)
        except RequestError as error:
            response = error_reply(error)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it; nginx' number for a client that went away
        if request_id := request_id_of(request):
            response.headers["x-request-id"] = request_id
        SECONDS.observe(time.perf_counter() - start)
        REQUESTS.labels(str(response.status_code)).inc()
        return response

    return answer


def _counted() -> CollectorRegistry:
    """The metrics of this process, or of all workers together."""
    if ValueClass is MutexValue:  # not in files, whatever somebody has put into the environment since
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def _told(version: str, scored: Scored) -> ScoreReply:
    reply: ScoreReply = {
        "model_version": version,
        "degraded": scored.degraded,
        "item_ids": list(scored.item_ids),
        "scores": {task: score_B.tolist() for task, score_B in scored.scores.items()},
    }
    if scored.explanation is not None:
        reply["explanation"] = scored.explanation
    return reply


def _reply(status: int, content: Mapping[str, Any]) -> Response:
    # A score that is no number (features overflowed) is null: NaN is not JSON.
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


def _error_reply(error: RequestError) -> Response:
    content = {"error": {**error.faults[0], "faults": error.faults}}
    body = to_json(content, inf_nan_mode="strings")
    return Response(body, error.status, error.headers, media_type="application/json")


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}; allowed is {allowed}"
        return _error_reply(refusal(405, "method", request.method, allowed, message, error.headers))
    allowed = "POST /score, GET /healthz, GET /readyz, GET /metrics, and what GET /openapi.json tells"
    message = f"there is no {request.url.path}; allowed is {allowed}"
    return _error_reply(refusal(error.status_code, "path", request.url.path, allowed, message))


async def _failed(request: Request, error: Exception) -> Response:
    """The reply to our own fault; uvicorn logs the traceback."""
    REQUESTS.labels("500").inc()
    _log.error("request %s failed: %s", request_id_of(request) or "without an X-Request-ID", type(error).__name__)
    message = f"the scorer failed ({type(error).__name__}); its log says why"
    return _error_reply(refusal(500, "", None, "a retry", message))


def build_app(
    swap: ChampionSwap,
    stop: StopSignal,
    limits: Limits = DEFAULT_LIMITS,
    tokens: Tokens | None = None,
    sample: float = 0.0,
) -> Starlette:
    """The ASGI application; its lifespan follows the champion. Without `tokens` anyone may ask.

    `sample`: the share of rows with an impression that are kept for the learner.
    """
    admission, release = Admission(limits, tokens), version("graft")
    sampler = Sampler(sample)
    scoring = Scoring(sampler)
    scorer = Scorer(swap, scoring, stop, admission, release)
    protocol = InferenceProtocol(swap, scoring, admission, release)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await swap.refresh()  # so that a worker that starts beside others does not refuse what they would answer
        watch = asyncio.create_task(swap.watch())
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await sampler.close()
        await swap.close()

    routes = [
        Route("/score", timed(scorer.score, _error_reply), methods=["POST"]),
        Route("/healthz", scorer.healthz),
        Route("/readyz", scorer.readyz),
        Route("/metrics", scorer.metrics),
        Route("/openapi.json", scorer.openapi),
        *protocol.routes(timed),
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
    swap: ChampionSwap,
    listener: socket.socket,
    stop: StopSignal,
    limits: Limits = DEFAULT_LIMITS,
    tokens: Tokens | None = None,
    sample: float = 0.0,
) -> None:
    """Serve `swap`'s champion at a listening socket until `stop` is set and the requests in flight are answered.

    Needs neither a version nor Redis to start: it is not ready before the first, and answers from default features
    without the second. Closes the socket. GraftError when this process may open too few files.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listener:
        check_open_files(limits)
        app = build_app(swap, stop, limits, tokens, sample)
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
        _log.info("serving http://%s:%d", *listener.getsockname()[:2])
        server = _Server(config, stop)
        server.run(sockets=[listener])
    if not server.started:
        raise GraftError("the scorer could not start; the log lines above say why")
