"""The endpoints of a scorer as ASGI applications, one for each listener: Starlette.

A request for scores: read the body, take the serving version once, parse, read the features, encode, score, reply.
Nothing else is on the way.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.telemetry import StopSignal
from runtime.tracing import HEADER, TRACING
from student.serve.admission import Admission, unavailable
from student.serve.inference import Endpoint, InferenceProtocol, error_reply
from student.serve.openapi import openapi_of
from student.serve.requests import (
    VERSION_ALLOWED,
    RequestError,
    ScoreReply,
    error_body,
    refusal,
    request_id_in,
    request_id_of,
    version_named_in,
)
from student.serve.scoring import Sampler, Scored, Scoring
from student.serve.swap import ChampionSwap
from student.serve.workers import Group
from student.versions.version_folder import VersionError


def traced(route: Route) -> Route:
    """The route, with each of its requests within a span; only where traces are on."""

    async def answer(request: Request) -> Response:
        told = {"http.request.method": request.method, "http.route": route.path}
        name, caller = f"{request.method} {route.path}", request.headers.get(HEADER)
        with TRACING.span(name, "SERVER", parent=caller, attributes=told) as span:
            response: Response = await route.endpoint(request)
            span.set_attribute("http.response.status_code", response.status_code)
        return response

    return Route(route.path, answer, methods=sorted(route.methods or ()))


REQUESTS = Counter("graft_scorer_requests_total", "Replies of /score", ["status"])
SECONDS = Histogram(
    "graft_scorer_request_seconds",
    "From the request's head to the finished reply, by the server's clock",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0),
)

_log = logging.getLogger(__name__)


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
        self._document: tuple[Any, dict[str, Any]] | None = None
        """The last one of OpenAPI, and what it tells of."""

    async def score(self, request: Request) -> Response:
        """POST /score: the served tasks' scores of the items for the user."""
        body = await self._admission.body_of(request)
        with self._admission:
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

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: the endpoints of this listener, and what the version that serves takes."""
        spec = self._swap.current.spec if self._swap.current else None
        known = await asyncio.to_thread(self._swap.known)
        told = (spec and spec.spec_id, known)
        if self._document is None or self._document[0] != told:  # to make it takes longer than ten requests for scores
            self._document = (told, openapi_of(self._release, spec, known))
        document, here = self._document[1], {route.path for route in request.app.routes}
        paths = {path: operations for path, operations in document["paths"].items() if path in here}
        return _reply(200, {**document, "paths": paths})

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
        _count_of(response.status_code).inc()
        return response

    return answer


@cache
def _count_of(status: int) -> Counter:
    return REQUESTS.labels(str(status))


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
    return Response(error_body(error), error.status, error.headers, media_type="application/json")


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}; allowed is {allowed}"
        return _error_reply(refusal(405, "method", request.method, allowed, message, error.headers))
    allowed = ", ".join(route.path for route in request.app.routes if "{" not in route.path)
    message = f"there is no {request.url.path}; allowed is {allowed}"
    return _error_reply(refusal(error.status_code, "path", request.url.path, allowed, message))


async def _failed(request: Request, error: Exception) -> Response:
    """The reply to our own fault; uvicorn logs the traceback."""
    REQUESTS.labels("500").inc()
    request_id = request_id_of(request)
    told = request_id or "without an X-Request-ID"
    _log.error("request %s failed: %s", told, type(error).__name__, extra={"request_id": request_id})
    message = f"the scorer failed ({type(error).__name__}); its log says why"
    return _error_reply(refusal(500, "", None, "a retry", message))


def build_apps(
    swap: ChampionSwap,
    stop: StopSignal,
    admission: Admission,
    sample: float = 0.0,
    apart: Collection[Group] = (),
) -> dict[Group, ASGIApp]:
    """The application of the scores, and one for each group that stands `apart`.

    The lifespan of that of the scores follows the champion; the others have none. `sample`: the share of rows with an
    impression that are kept for the learner.
    """
    release, sampler = version("graft"), Sampler(sample)
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

    scores = [Route("/score", timed(scorer.score, _error_reply), methods=["POST"]), *protocol.inference(timed)]
    everywhere = [Route("/healthz", scorer.healthz), Route("/readyz", scorer.readyz), *protocol.health()]
    routes: dict[Group, list[Route]] = {
        "scores": [
            *(map(traced, scores) if TRACING.is_on else scores),
            Route("/openapi.json", scorer.openapi),
        ],
        "administration": protocol.metadata(),
        "metrics": [Route("/metrics", scorer.metrics)],
    }
    together = [route for group, of in routes.items() if group not in apart for route in of]
    scores_app = _app([*together, *everywhere], lifespan)  # tried in this order
    apps: dict[Group, ASGIApp] = {"scores": _refusing_beyond(admission, scores_app)}
    for group in apart:
        apps[group] = _app([*everywhere, *routes[group]])
    return apps


def _refusing_beyond(admission: Admission, app: ASGIApp) -> ASGIApp:
    """`app`, to which no POST comes while too much is under way: such a refusal costs much less than a request."""
    error, count = admission.too_much(), REQUESTS.labels("503")
    of_score, of_inference = _error_reply(error), error_reply(error)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if not admission.is_full or scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        while (await receive()).get("more_body"):  # else the connection might be closed before the reply is read
            pass
        reply = of_inference if scope["path"].startswith("/v2/") else of_score
        request_id = request_id_in(Headers(raw=scope["headers"]))
        of_request = [] if request_id is None else [(b"x-request-id", request_id.encode())]
        count.inc()
        # As `await reply(scope, receive, send)`, in half the time.
        await send({"type": "http.response.start", "status": 503, "headers": [*reply.raw_headers, *of_request]})
        await send({"type": "http.response.body", "body": reply.body})

    return answer


def _app(routes: list[Route], lifespan: Any = None) -> Starlette:
    handlers: Any = {HTTPException: _not_routed, Exception: _failed}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
