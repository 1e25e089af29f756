"""The OpenAPI 3.1 document of the scorer: of its endpoints, and of the requests that the version that serves takes.

https://spec.openapis.org/oas/v3.1.0. Without a version, what every version takes.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from features.contract import Fault, Rule, contract_of
from features.spec import FeatureSpec
from student.serve.requests import MAX_ITEMS, ScoreReply, ScoreRequest

Schema = dict[str, Any]

_JSON = "application/json"
_TEXT = "text/plain"

_ERRORS = {
    "400": "the body is no JSON, or no request of the Open Inference Protocol",
    "401": "there is no token, or a wrong one",
    "408": "the request took too long to arrive",
    "413": "the body is too large",
    "422": "fields are missing, unknown, or not what is allowed",
    "431": "the line and headers are too large",
    "500": "a fault of the scorer; its log has the traceback",
    "503": "no version is loaded, or too much is under way; try again after Retry-After seconds",
}


def openapi_of(release: str, spec: FeatureSpec | None, versions: Sequence[str]) -> dict[str, Any]:
    """The document; `versions`: the names and versions that a request may have."""
    error = {"$ref": "#/components/schemas/Error"}
    sentence = {"$ref": "#/components/schemas/Sentence"}
    any_object: Schema = {"type": "object"}
    reply, parts = _score_reply()
    model = [_parameter("model", ["student"])]
    paths: dict[str, Any] = {
        "/score": {"post": _operation("score items for a user", _score_request(spec, versions), reply, error)},
        "/healthz": {"get": _operation("whether the process lives", None, any_object)},
        "/readyz": {"get": _operation("whether scores can be had", None, any_object, any_object, ["503"])},
        "/metrics": {"get": _operation("metrics for Prometheus", None, {"type": "string"}, media=_TEXT)},
        "/openapi.json": {"get": _operation("this document", None, any_object)},
        "/v2": {"get": _operation("the server, by the Open Inference Protocol", None, any_object)},
        "/v2/health/live": {"get": _operation("whether the process lives", None, any_object)},
        "/v2/health/ready": {"get": _operation("whether scores can be had", None, any_object, any_object, ["503"])},
    }
    told = ["404", "503"]
    for part, parameters in (
        ("", model),
        ("/versions/{version}", [*model, _parameter("version", versions)]),
        ("/labels/{version}", [*model, _parameter("version", versions)]),
    ):
        path = f"/v2/models/{{model}}{part}"
        infer = _operation("score items by tensors", _tensors(), any_object, sentence, [*_ERRORS, "404"])
        for end, method, operation in (
            ("", "get", _operation("inputs, outputs and versions", None, any_object, sentence, told)),
            ("/ready", "get", _operation("whether it can answer", None, any_object, sentence, told)),
            ("/infer", "post", infer),
        ):
            paths[path + end] = {"parameters": parameters, method: operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "graft scorer", "version": release},
        "paths": paths,
        "components": {"schemas": {"Error": _error(), "Sentence": _sentence(), **parts}},
    }


def _operation(
    summary: str,
    body: Schema | None,
    answer: Schema,
    error: Schema | None = None,
    statuses: Sequence[str] = tuple(_ERRORS),
    media: str = _JSON,
) -> dict[str, Any]:
    responses = {"200": {"description": "as asked", "content": {media: {"schema": answer}}}}
    if error is not None:
        for status in statuses:
            said = _ERRORS.get(status, "there is no such model or version")
            responses[status] = {"description": said, "content": {_JSON: {"schema": error}}}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return operation


def _parameter(name: str, values: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": list(values)}}


def _score_request(spec: FeatureSpec | None, versions: Sequence[str]) -> Schema:
    """What /score takes, with the types of the version that serves."""
    general = TypeAdapter(ScoreRequest).json_schema()
    if spec is None:
        return general
    contract = contract_of(spec)
    context = {name: _schema(rule) for name, rule in contract.context_values.items()}
    ids = {"type": "array", "items": _schema(contract.item_id), "minItems": 1, "maxItems": MAX_ITEMS}
    properties = general["properties"]
    return general | {
        "properties": {
            "user_id": _schema(contract.user_id),
            "item_ids": {**ids, "description": properties["item_ids"]["description"]},
            "context": {"type": "object", "properties": context, "additionalProperties": False},
            "version": {"type": "string", "enum": list(versions), "description": properties["version"]["description"]},
            "impression_ids": properties["impression_ids"],
            "explain": properties["explain"],
        }
    }


def _score_reply() -> tuple[Schema, dict[str, Schema]]:
    """What /score answers, and the parts to which that refers."""
    schema = TypeAdapter(ScoreReply).json_schema(ref_template="#/components/schemas/{model}")
    return schema, schema.pop("$defs")


def _tensors() -> Schema:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}},
    }


def _schema(rule: Rule) -> Schema:
    return GenerateJsonSchema().generate(rule.schema)


def _error() -> Schema:
    fault = TypeAdapter(Fault).json_schema()
    faults = {"type": "array", "items": fault, "minItems": 1}
    told = {
        **fault,
        "properties": {**fault["properties"], "faults": faults},
        "required": [*fault["required"], "faults"],
    }
    return {"type": "object", "properties": {"error": told}, "required": ["error"], "additionalProperties": False}


def _sentence() -> Schema:
    return {
        "type": "object",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
        "additionalProperties": False,
    }
