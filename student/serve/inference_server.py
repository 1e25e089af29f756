"""The endpoints of the Open Inference Protocol v2 over the versions that /score answers from: /v2 and below."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from student.serve.admission import Admission, unavailable
from student.serve.inference import metadata, read_request, reply
from student.serve.request_id import request_id_of
from student.serve.requests import RequestError, refusal
from student.serve.scoring import Scoring
from student.serve.swap import ChampionSwap, Serving
from student.versions.version_folder import VersionError

MODEL = "student"
"""The one model of this server."""

_MODEL_PATHS = [f"/v2/models/{{model}}{of}" for of in ("", "/versions/{version}", "/labels/{version}")]

_HEADER_LENGTH = "Inference-Header-Content-Length"

Endpoint = Callable[[Request], Awaitable[Response]]


class InferenceProtocol:
    """Answers /v2; `graft` is its release."""

    def __init__(self, swap: ChampionSwap, scoring: Scoring, admission: Admission, release: str) -> None:
        self._swap = swap
        self._scoring = scoring
        self._admission = admission
        self._release = release

    def health(self) -> list[Route]:
        """Whether the server lives, and whether it is ready."""
        return [Route("/v2/health/live", self._live), Route("/v2/health/ready", self._ready)]

    def metadata(self) -> list[Route]:
        """Of the server, the model, and each version by number or name."""
        routes = [Route("/v2", self._server)]
        for path in _MODEL_PATHS:
            routes += [Route(path, _caught(self._model)), Route(f"{path}/ready", _caught(self._model_ready))]
        return routes

    def inference(self, timed: Callable[[Endpoint, Callable[[RequestError], Response]], Endpoint]) -> list[Route]:
        """Of the model, and each version by number or name. `timed` wraps what counts as a request."""
        infer = timed(self._infer, error_reply)
        return [Route(f"{path}/infer", infer, methods=["POST"]) for path in _MODEL_PATHS]

    async def _server(self, _request: Request) -> Response:
        return _json({"name": "graft", "version": self._release, "extensions": ["binary_tensor_data"]})

    async def _live(self, _request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _request: Request) -> Response:
        return _json({"ready": self._swap.current is not None}, 200 if self._swap.current else 503)

    async def _model(self, request: Request) -> Response:
        serving = await self._serving(request)
        return _json(metadata(MODEL, self._swap.versions(), serving))

    async def _model_ready(self, request: Request) -> Response:
        await self._serving(request)
        return _json({"name": MODEL, "ready": True})

    async def _infer(self, request: Request) -> Response:
        body = await self._admission.body_of(request)
        with self._admission:
            serving = await self._serving(request)
            asked = read_request(body, request.headers.get(_HEADER_LENGTH))
            checked = serving.contract.check(asked.request)
            answer = await self._scoring.score(serving, checked, request_id_of(request) or asked.id)
            content, head = reply(asked, {"model_name": MODEL, "model_version": serving.version}, answer.scores)
        if head is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={_HEADER_LENGTH: str(head)}, media_type="application/octet-stream")

    async def _serving(self, request: Request) -> Serving:
        """The version of the path; RequestError 404 where there is none."""
        model, version = request.path_params["model"], request.path_params.get("version")
        if model != MODEL:
            raise refusal(404, "model", model, MODEL, f"there is no model {model[:80]!r}; allowed is {MODEL}")
        if self._swap.current is None:
            raise unavailable("no version is loaded; the learner has not published one yet")
        if version is None:
            return self._swap.current
        try:
            return await self._swap.named(version)
        except VersionError as error:
            raise refusal(404, "version", version[:80], "a version or its name", str(error)) from None


def error_reply(error: RequestError) -> Response:
    """An error as the protocol has it: one sentence."""
    return _json({"error": error.faults[0]["message"]}, error.status, error.headers)


def _caught(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            return error_reply(error)

    return answer


def _json(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, media_type="application/json")
