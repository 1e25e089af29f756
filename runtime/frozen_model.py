"""The base of what is read from a file or a message and not changed after: configuration, manifests, records."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class FrozenModel(BaseModel):
    """Checked when it is made, frozen then; an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """What a file may say of a model: its `kind`, its tables, and the values that have a description.

    A value without one is fixed: only tests and studies vary it, and what earlier releases wrote has it.
    """
    return {
        field.alias or name: field
        for name, field in model.model_fields.items()
        if not field.exclude and (name == "kind" or field.description or opens_a_table(field.annotation))
    }


def opens_a_table(annotation: Any) -> bool:
    """Whether a key of this type stands in the file as a table of its own."""
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in _parts(annotation))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)
