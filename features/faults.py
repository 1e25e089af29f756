"""What is wrong with a message or a request, field by field."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails, ValidationError
from typing_extensions import TypedDict

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
