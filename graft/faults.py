"""pydantic's validation errors in our words: the key as it stands in the file, what is allowed, the value."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from runtime.errors import did_you_mean
from runtime.frozen_model import keys_of

_TYPES = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "an integer",
    "list": "a list",
    "model": "a table",
    "path": "a path",
    "string": "a text",
}
_RULES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "greater_than": lambda c: f"must be > {c['gt']:g}",
    "greater_than_equal": lambda c: f"must be >= {c['ge']:g}",
    "less_than": lambda c: f"must be < {c['lt']:g}",
    "less_than_equal": lambda c: f"must be <= {c['le']:g}",
    "literal_error": lambda c: f"must be {c['expected']}",
    "string_too_short": lambda c: f"must have at least {c['min_length']} characters",
    "string_too_long": lambda c: f"must have at most {c['max_length']} characters",
    "too_short": lambda c: f"must have at least {c['min_length']} entries",
}


class Place(NamedTuple):
    """Where a value stands: its keys as the file has them, from the top, and the type that belongs there."""

    keys: tuple[str, ...]
    annotation: Any

    @property
    def key(self) -> str:
        """The keys as one text."""
        return ".".join(self.keys)


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One text per fault of a `model`: ``distillation.0.weight: must be <= 100, got 1000``; none twice."""
    return list(dict.fromkeys(_fault(fault, model) for fault in error.errors(include_url=False)))


def _fault(fault: Any, model: type[BaseModel]) -> str:
    loc = fault["loc"]
    owner = _place(loc[:-1], model)
    if fault["type"] != "extra_forbidden":
        return _text(fault, _place(loc, model), owner.annotation)
    name = str(loc[-1])
    known = keys_of(owner.annotation) if hasattr(owner.annotation, "model_fields") else ()
    return f"{'.'.join((*owner.keys, name))}: no such key{did_you_mean(name, known)}"


def _text(fault: Any, place: Place, owner: Any) -> str:
    kind = fault["type"]
    if kind == "missing":
        return f"{place.key}: is missing"
    if kind.startswith("union_tag"):
        name = fault["ctx"]["discriminator"].strip("'")
        value = repr(fault["ctx"]["tag"]) if "tag" in fault["ctx"] else "nothing"
        return f"{place.key}.{name}: must be one of {', '.join(_tags(place.annotation, name))}, got {value}"
    if kind == "value_error":  # raised by a validator of ours, whose text names the value
        return f"{place.key}: {fault['ctx']['error']}"
    rule = _allowed(owner, place.keys[-1]) if kind == "string_pattern_mismatch" else _rule(fault, place.annotation)
    return f"{place.key}: {rule}, got {fault['input']!r}"


def _allowed(owner: Any, name: str) -> str:
    """The field's own words for what its pattern allows; a regular expression is not for users."""
    words: str = owner.model_fields[name].json_schema_extra["allowed"]
    return f"must be {words}"


def _rule(fault: Any, annotation: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _RULES:
        return _RULES[kind](context)
    branches = [a.__name__ for a in alternatives(annotation)]
    if len(branches) > 1 and kind.endswith(("_type", "_parsing")):
        return f"must be of type {' or '.join(branches)}"
    name = kind.split("_")[0]
    if name in _TYPES:
        return f"must be {_TYPES[name]}"
    return str(fault["msg"])


def _place(loc: Sequence[int | str], model: type[BaseModel]) -> Place:
    """Walk the types along pydantic's `loc`, which names the branch of a union beside the keys."""
    keys: list[str] = []
    annotation: Any = model
    for part in loc:
        branches = alternatives(annotation)
        if len(branches) > 1:
            chosen = [b for b in branches if part in _names(b)]
            if not chosen:
                break
            annotation = chosen[0]
            continue
        keys.append(str(part))
        annotation = _inner(branches[0], part)
    branches = alternatives(annotation)
    return Place(tuple(keys), branches[0] if len(branches) == 1 else annotation)


def _inner(annotation: Any, part: int | str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else Any
    arguments = get_args(annotation)
    return arguments[-1] if arguments else Any


def alternatives(annotation: Any) -> list[Any]:
    """The branches of a union without None; else the type itself."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [b for a in get_args(annotation) if a is not types.NoneType for b in alternatives(a)]
    return [annotation]


def _tags(annotation: Any, name: str) -> list[str]:
    models = [b for b in alternatives(annotation) if isinstance(b, type) and issubclass(b, BaseModel)]
    return [tag for m in models for tag in get_args(m.model_fields[name].annotation)]


def _names(branch: Any) -> set[Any]:
    """How pydantic may name this branch of a union in a `loc`."""
    if isinstance(branch, type) and issubclass(branch, BaseModel):
        literals = [f.annotation for f in branch.model_fields.values() if get_origin(f.annotation) is Literal]
        return {branch.__name__, *(tag for literal in literals for tag in get_args(literal))}
    return set()
