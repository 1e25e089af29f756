"""The one contract of ids and context: the stream accepts of an event exactly what the scorer accepts of a request.

The annotated types hold for every project. `contract_of` narrows them to one feature spec: each id has one type, and a
context has the declared names only. `faults_of` says what is wrong with a message or a request, field by field.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StrictFloat, StrictInt, StrictStr, TypeAdapter
from pydantic_core import CoreSchema, ErrorDetails, ValidationError, core_schema
from typing_extensions import TypedDict

from features.spec import Feature, FeatureSpec, IdType

MAX_TEXT_CHARACTERS = 256
"""The longest id, and the longest string in a context."""

_FLOAT32_MAX = 3.4e38  # a larger number has no float32

Int64 = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Float32 = Annotated[StrictFloat, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, allow_inf_nan=False)]
IdText = Annotated[StrictStr, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
ContextText = Annotated[StrictStr, Field(max_length=MAX_TEXT_CHARACTERS)]

EntityId = Int64 | IdText
"""A user or item id."""

UserId = Annotated[
    EntityId, Field(description="the user's id, of the type of Feast's user entity; an integer has no decimal point")
]
ItemId = Annotated[
    EntityId, Field(description="the item's id, of the type of Feast's item entity; an integer has no decimal point")
]

ContextNumber = Int64 | Float32
"""A context value of the type float; an integer stays one, as the event has it."""

ContextValue = ContextNumber | ContextText
"""A context value of any type."""

Context = Annotated[
    dict[str, ContextValue],
    Field(description="context feature -> its value, each of the type that features.context in graft.toml declares"),
]


class Rule(NamedTuple):
    """What one field may hold: the schema that checks it, and the same in words, which errors repeat."""

    schema: CoreSchema
    allowed: str


_INT64 = Rule(TypeAdapter(Int64).core_schema, "an integer in [-2^63, 2^63)")
ID_TEXT = Rule(TypeAdapter(IdText).core_schema, f"a string of 1 to {MAX_TEXT_CHARACTERS} characters")
_NUMBER = Rule(
    core_schema.custom_error_schema(  # one fault; a union reports one for each of its types
        TypeAdapter(ContextNumber).core_schema,
        custom_error_type="number",
        custom_error_message="Input should be a valid number",
    ),
    f"a number in [-{_FLOAT32_MAX}, {_FLOAT32_MAX}]".replace("e+", "e"),
)
_IDS: dict[IdType, Rule] = {"int": _INT64, "str": ID_TEXT}
_CONTEXT: dict[str, Rule] = {
    "int": _INT64,
    "float": _NUMBER,
    "str": Rule(TypeAdapter(ContextText).core_schema, f"a string of 0 to {MAX_TEXT_CHARACTERS} characters"),
}


@dataclass(frozen=True)
class Contract:
    """What the ids and the context of one feature spec may hold. A name that a context leaves out is a miss."""

    user_id: Rule
    item_id: Rule
    context: Rule
    context_values: Mapping[str, Rule]

    def allowed_context(self) -> dict[str, str]:
        """The path of the context, and of each of its names -> what is allowed there."""
        return {"context": self.context.allowed} | {
            f"context.{name}": rule.allowed for name, rule in self.context_values.items()
        }


def contract_of(spec: FeatureSpec) -> Contract:
    """The contract of a spec's ids and declared context."""
    values = {context_name(f): _CONTEXT[f.dtype] for f in spec.features if f.source == "context"}
    names = ", ".join(values) or "no names: this project has no context features"
    return Contract(
        user_id=_IDS[spec.user_id_type],
        item_id=_IDS[spec.item_id_type],
        context=Rule(_context_schema(values), f"an object with any of {names}"),
        context_values=values,
    )


def context_name(feature: Feature) -> str:
    """The key in a `context` that feeds this context feature."""
    return feature.name.removeprefix("context:")


def _context_schema(values: Mapping[str, Rule]) -> CoreSchema:
    """An object with these names and no other; it keeps the order of its keys, which an example logs."""
    fields = {name: core_schema.typed_dict_field(rule.schema, required=False) for name, rule in values.items()}
    named = core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid")
    return core_schema.chain_schema(
        [
            core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema(), strict=True),
            core_schema.no_info_wrap_validator_function(_in_given_order, named),
        ]
    )


def _in_given_order(given: Any, check: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    checked = check(given)
    return {name: checked[name] for name in given}


MAX_FAULTS = 100
"""Faults that are told of one body at most."""

_SHOWN_CHARACTERS = 200  # of a bad value or of a path that is repeated


class Fault(TypedDict):
    """One fault: where it is (``item_ids[3]``, ``context.hour``), what stands there, and what may."""

    field: str
    value: Any
    allowed: str
    message: str


def faults_of(error: ValidationError, whole: str, allowed: Mapping[str, str]) -> list[Fault]:
    """The first faults of a validation.

    `whole` is what was validated, as the message names it. `allowed` says what each path may hold; the key
    ``field[]`` stands for the items of a list, "" for the whole.
    """
    details = error.errors(include_url=False, include_context=False)[:MAX_FAULTS]
    return [_fault(detail, whole, allowed) for detail in details]


def _fault(detail: ErrorDetails, whole: str, allowed: Mapping[str, str]) -> Fault:
    loc, kind = detail["loc"], detail["type"]
    rule = "a JSON object" if kind == "json_invalid" else allowed[_rule(loc, unknown=kind == "extra_forbidden")]
    field = _path(loc)[:_SHOWN_CHARACTERS]
    return Fault(
        field=field,
        value=None if kind == "missing" else _shown(detail["input"]),
        allowed=rule,
        message=f"{field or whole}: {detail['msg']}; allowed is {rule}",
    )


def _rule(loc: Sequence[str | int], *, unknown: bool) -> str:
    """The key in `allowed` for this place; an unknown name breaks the rule of the object that it stands in."""
    if unknown:
        return _path(loc[:-1])
    return f"{_path(loc[:-1])}[]" if loc and isinstance(loc[-1], int) else _path(loc)


def _path(loc: Sequence[str | int]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _shown(value: Any) -> Any:
    """`value` as an error repeats it: long texts and containers shortened to their first characters."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**64:
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
