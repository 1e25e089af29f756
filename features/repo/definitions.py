"""What a Feast repository defines, as far as a feature spec needs it, and whether its push sources fit.

Plain data, so that compiling is pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from features.config import AggregateConfig, ProfileConfig


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


def push_source_faults(
    table: AggregateConfig | ProfileConfig, fed: Sequence[str], definitions: Definitions, entity: str
) -> Iterator[str]:
    """What is wrong. `fed`: the push sources of all tables. `entity`: Feast's name of the table's."""
    if fed.count(table.push_source) > 1:
        yield "stands twice; one table feeds a push source"
    views = _views(definitions, table.push_source)
    if not views:
        known = sorted({view.push_source for view in definitions.views.values() if view.push_source})
        yield f"no push source of a view {table.push_source!r}; there is {', '.join(known) or 'none'}"
    for name, view in views.items():
        yield from _view_faults(table, name, view, entity)


def fed_fields(definitions: Definitions, push_source: str, column: str) -> list[FieldDefinition]:
    """The fields that a column of the push source's table feeds, one of each view that has it."""
    views = _views(definitions, push_source).values()
    return [view.fields[column] for view in views if column in view.fields]


def _views(definitions: Definitions, push_source: str) -> dict[str, ViewDefinition]:
    return {name: view for name, view in definitions.views.items() if view.push_source == push_source}


def _view_faults(table: AggregateConfig | ProfileConfig, name: str, view: ViewDefinition, entity: str) -> Iterator[str]:
    if view.entities != (entity,):
        yield f"view {name!r} must have the entity {entity!r}; it has {', '.join(view.entities)}"
    if set(view.fields) != set(table.columns):
        yield (
            f"its columns must be the features of view {name!r}, which are written whole: "
            f"{', '.join(sorted(view.fields))}; got {', '.join(sorted(table.columns))}"
        )
    if not view.timestamp_field:
        yield f"the batch source of view {name!r} must name its timestamp_field in the repository"
