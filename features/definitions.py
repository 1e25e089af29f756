"""What a Feast repository defines, as far as a feature spec needs it; plain data, so that compiling is pure."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EntityDefinition:
    """An entity; `value_type` is the name of a feast.ValueType."""

    join_key: str
    value_type: str


@dataclass(frozen=True)
class FieldDefinition:
    """One feature of a view; `vector_length` is 0 where the repository does not say."""

    value_type: str
    vector_length: int = 0


@dataclass(frozen=True)
class ViewDefinition:
    """A feature view; `push_source` is "" for a batch view, `timestamp_field` is that of its batch source."""

    entities: tuple[str, ...]
    fields: Mapping[str, FieldDefinition]
    push_source: str = ""
    timestamp_field: str = ""
    online: bool = True


@dataclass(frozen=True)
class Definitions:
    """A whole repository. A service maps each of its views to the features that it offers of it."""

    project: str
    entity_key_serialization_version: int
    entities: Mapping[str, EntityDefinition]
    views: Mapping[str, ViewDefinition]
    services: Mapping[str, Mapping[str, frozenset[str]]]
