"""The Open Inference Protocol v2 over the versions that /score answers from: /v2 and below.

Inputs: ``user_id`` [1], ``item_ids`` [N] and, optionally, ``impression_ids`` [N] and ``context.NAME`` [1] of each.
Outputs: a task each, FP32 [N]. The tensors: runtime/inference_protocol.py.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from features.contract import context_name
from runtime.inference_protocol import (
    BINARY,
    HEADER_LENGTH,
    Part,
    Tensor,
    TensorError,
    json_part,
    parsed,
    values_of,
    with_bytes,
    written,
)
from student.serve.admission import Admission, unavailable
from student.serve.requests import MAX_ITEMS, RequestError, refusal, request_id_of
from student.serve.scoring import Scoring
from student.serve.swap import ChampionSwap, Serving
from student.versions.numpy_model import Scores
from student.versions.served_tensors import served_tasks
from student.versions.version_folder import VersionError

MODEL = "student"
"""The one model of this server."""

_MODEL_PATHS = [f"/v2/models/{{model}}{of}" for of in ("", "/versions/{version}", "/labels/{version}")]

_OF_A_MIXTURE = "of an item among itself and the negatives that were drawn beside it: an order of items, no rate"
_CONTEXT = "context."
_TYPE_OF = {"int": "INT64", "float": "FP32", "str": "BYTES"}
"""The datatype that a feature's own type is told as; any that holds its values is taken."""

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
        return _json({"name": "graft", "version": self._release, "extensions": [BINARY]})

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
            asked = read_request(body, request.headers.get(HEADER_LENGTH))
            checked = serving.contract.check(asked.request)
            answer = await self._scoring.score(serving, checked, request_id_of(request) or asked.id)
            content, head = reply_body(asked, {"model_name": MODEL, "model_version": serving.version}, answer.scores)
        if head is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={HEADER_LENGTH: str(head)}, media_type="application/octet-stream")

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


class _OutputParameters(Part):
    binary_data: bool | None = None


class _Output(Part):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _RequestParameters(Part):
    binary_data_output: bool = False


class _Request(Part):
    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: _RequestParameters = _RequestParameters()
    inputs: Annotated[list[Tensor], Field(max_length=256)]
    outputs: Annotated[list[_Output], Field(max_length=256)] | None = None


class Asked(NamedTuple):
    """What a request asks for."""

    id: str | None
    request: dict[str, Any]
    """As the body of /score has it: user_id, item_ids, context."""
    outputs: Mapping[str, bool] | None
    """Names, and whether each is to be binary; all outputs if None."""
    is_binary: bool
    """Of outputs that say nothing else."""


def read_request(body: bytes, header_length: str | None) -> Asked:
    """What the body asks for, or RequestError 400; `header_length` is the header Inference-Header-Content-Length."""
    try:
        size = json_part(body, header_length)
        asked = parsed(_Request, body[:size], strict=True)
        request = _as_score_request(_values(asked.inputs, body[size:]))
    except TensorError as error:
        raise _refusal(str(error)) from None
    is_binary = asked.parameters.binary_data_output
    outputs = None
    if asked.outputs:  # each once, as Triton
        of_output = {output.name: output.parameters.binary_data for output in asked.outputs}
        outputs = {name: is_binary if says is None else says for name, says in of_output.items()}
    return Asked(asked.id, request, outputs, is_binary)


def reply_body(asked: Asked, model: Mapping[str, str], scores: Scores) -> tuple[bytes, int | None]:
    """The body of the reply, and the length of its JSON part where binary tensors follow.

    `model`: model_name and model_version. RequestError 400 for an output that there is not.
    """
    wanted = dict.fromkeys(scores, asked.is_binary) if asked.outputs is None else asked.outputs
    if unknown := [name for name in wanted if name not in scores]:
        raise _refusal(f"outputs: allowed is any of {', '.join(scores)}, got {unknown[0]!r}")
    outputs = [written(task, "FP32", scores[task], is_binary=is_binary) for task, is_binary in wanted.items()]
    of_request = {} if asked.id is None else {"id": asked.id}
    head = to_json({**model, **of_request, "outputs": [entry for entry, _ in outputs]}, inf_nan_mode="null")
    body = b"".join([head, *(data for _, data in outputs)])
    return body, len(head) if any(wanted.values()) else None


def metadata(name: str, versions: Sequence[str], serving: Serving) -> dict[str, Any]:
    """What GET /v2/models/NAME says of a version: inputs and outputs with their types, and where it comes from.

    A shape of -1 is any number. Properties are texts, as the protocol has them.
    """
    manifest, spec = serving.manifest, serving.spec
    context = [(context_name(f), f.dtype) for f in spec.features if f.source == "context"]
    inputs: list[tuple[str, str, int]] = [("user_id", spec.user_id_type, 1), ("item_ids", spec.item_id_type, -1)]
    inputs += [(f"{_CONTEXT}{key}", dtype, 1) for key, dtype in context]
    return {
        "name": name,
        "versions": list(versions),
        "platform": "graft_student",
        "inputs": [{"name": n, "datatype": _TYPE_OF[dtype], "shape": [size]} for n, dtype, size in inputs],
        "outputs": [{"name": task, "datatype": "FP32", "shape": [-1]} for task in served_tasks(manifest)],
        "properties": {
            "version": serving.version,
            "serving_since": _moment(serving.since_ms),
            "published_at": _moment(manifest.created_at_ms),
            "examples": str(manifest.examples),
            "offsets": to_json(manifest.offsets).decode(),
            **({"probabilities": _OF_A_MIXTURE} if manifest.met_drawn else {}),
        },
    }


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _values(inputs: Sequence[Tensor], tail: bytes) -> dict[str, list[Any]]:
    """The values of each input, flat."""
    values: dict[str, list[Any]] = {}
    for tensor, data in with_bytes(inputs, tail):
        if tensor.name in values or tensor.size > MAX_ITEMS:
            raise TensorError(f"{tensor.name}: allowed is one input of each name, with at most {MAX_ITEMS} elements")
        elements = values_of(tensor, data)
        values[tensor.name] = elements if isinstance(elements, list) else elements.tolist()
    return values


def _as_score_request(values: Mapping[str, list[Any]]) -> dict[str, Any]:
    request: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, elements in values.items():
        if name in ("item_ids", "impression_ids"):
            request[name] = elements
        elif len(elements) != 1:
            raise TensorError(f"{name}: allowed is one element, got {len(elements)}")
        elif name in ("context", "version", "explain"):  # of /score; here inputs of their own, the path, and nothing
            raise TensorError(f"{name}: allowed is user_id, item_ids, impression_ids and {_CONTEXT}NAME")
        elif name.startswith(_CONTEXT):
            context[name.removeprefix(_CONTEXT)] = elements[0]
        else:
            request[name] = elements[0]
    return request | ({"context": context} if context else {})


def _refusal(fault: str) -> RequestError:
    return refusal(400, "", None, "a request of the Open Inference Protocol", fault[:500])
