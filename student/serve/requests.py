"""The request contract of /score: one strict validator per feature spec, and errors that say what is allowed."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from pydantic_core import SchemaValidator, ValidationError, core_schema

from features.spec import FeatureSpec

MAX_ITEMS = 1_000
MAX_BODY_BYTES = 1 << 20
MAX_FAULTS = 100
"""Faults that an error body lists at most."""

_MAX_TEXT = 256  # characters of an id or a context string, as in the events (stream/events.py)
_FLOAT32_MAX = 3.4e38  # a larger number has no float32
_SHOWN = 200  # characters of a bad value that the error repeats
_INT64 = core_schema.int_schema(strict=True, ge=-(2**63), lt=2**63)
_TYPES: dict[str, tuple[core_schema.CoreSchema, str]] = {
    "int": (_INT64, "an integer in [-2^63, 2^63)"),
    "str": (
        core_schema.str_schema(strict=True, min_length=1, max_length=_MAX_TEXT),
        f"a string of 1 to {_MAX_TEXT} characters",
    ),
}
_CONTEXT_TYPES: dict[str, tuple[core_schema.CoreSchema, str]] = {
    "int": _TYPES["int"],
    "str": (core_schema.str_schema(strict=True, max_length=_MAX_TEXT), f"a string of 0 to {_MAX_TEXT} characters"),
    "float": (
        core_schema.float_schema(strict=True, allow_inf_nan=False, ge=-_FLOAT32_MAX, le=_FLOAT32_MAX),
        "a number in [-3.4e38, 3.4e38]",
    ),
}


class ScoreRequest(TypedDict):
    """A valid body. `context` holds declared names only; a missing one takes its default."""

    user_id: int | str
    item_ids: list[int | str]
    context: NotRequired[dict[str, int | float | str]]


class Fault(TypedDict):
    """One fault: where it is (``item_ids[3]``, ``context.hour``), what stands there, and what may."""

    field: str
    value: Any
    allowed: str
    message: str


class RequestError(Exception):
    """A request that gets a 4xx with `faults` in its body."""

    def __init__(self, status: int, faults: Sequence[Fault]) -> None:
        self.status = status
        self.faults = tuple(faults)
        super().__init__(f"{status}: {self.faults[0]['message']}")


def refusal(status: int, field: str, value: Any, allowed: str, message: str) -> RequestError:
    """A RequestError with one fault."""
    return RequestError(status, [Fault(field=field, value=value, allowed=allowed, message=message)])


class RequestContract:
    """Reads the bodies of /score for one spec."""

    def __init__(self, spec: FeatureSpec) -> None:
        context = {
            f.name.removeprefix("context:"): _CONTEXT_TYPES[f.dtype] for f in spec.features if f.source == "context"
        }
        user, item = _TYPES[spec.user_id_type], _TYPES[spec.item_id_type]
        context_names = ", ".join(context) or "no names: this pair has no context features"
        self._allowed = {
            "": "an object with user_id, item_ids and, optionally, context",
            "user_id": user[1],
            "item_ids": f"a list of 1 to {MAX_ITEMS} ids, each {item[1]}",
            "item_ids[]": item[1],
            "context": f"an object with any of {context_names}",
        } | {f"context.{name}": allowed for name, (_, allowed) in context.items()}
        items = core_schema.list_schema(item[0], strict=True, min_length=1, max_length=MAX_ITEMS)
        self._validator = SchemaValidator(
            _object(
                {
                    "user_id": (user[0], True),
                    "item_ids": (items, True),
                    "context": (_object({name: (schema, False) for name, (schema, _) in context.items()}), False),
                }
            )
        )

    def parse(self, body: bytes | bytearray) -> ScoreRequest:
        """The request in `body`; RequestError 400 when it is not JSON, 422 with every fault when it does not fit."""
        try:
            request: ScoreRequest = self._validator.validate_json(body)
        except ValidationError as error:
            raise self._refused(error) from None
        return request

    def _refused(self, error: ValidationError) -> RequestError:
        details = error.errors(include_url=False, include_context=False)
        if details[0]["type"] == "json_invalid":
            return refusal(400, "", None, "a JSON object", f"the body: {details[0]['msg']}; allowed is a JSON object")
        return RequestError(422, [self._fault(detail) for detail in details[:MAX_FAULTS]])

    def _fault(self, detail: Mapping[str, Any]) -> Fault:
        loc, kind = detail["loc"], detail["type"]
        allowed = self._rule(loc, unknown=kind == "extra_forbidden")
        return Fault(
            field=_path(loc),
            value=None if kind == "missing" else _shown(detail["input"]),
            allowed=allowed,
            message=f"{_path(loc) or 'the body'}: {detail['msg']}; allowed is {allowed}",
        )

    def _rule(self, loc: Sequence[str | int], *, unknown: bool) -> str:
        if unknown:
            return self._allowed[_path(loc[:-1])]
        return self._allowed["item_ids[]" if len(loc) == 2 and loc[0] == "item_ids" else _path(loc)]


def _object(fields: Mapping[str, tuple[core_schema.CoreSchema, bool]]) -> core_schema.CoreSchema:
    """A JSON object with these fields (schema, required) and no other."""
    return core_schema.typed_dict_schema(
        {name: core_schema.typed_dict_field(schema, required=required) for name, (schema, required) in fields.items()},
        strict=True,
        extra_behavior="forbid",
    )


def _path(loc: Sequence[str | int]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path[:_SHOWN]


def _shown(value: Any) -> Any:
    """`value` as the error repeats it: long texts and containers shortened to their first characters."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**64:
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
