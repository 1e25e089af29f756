"""Whether the `[[features.aggregates]]` tables fit the views that they feed."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from features.config import AggregateConfig, FeaturesConfig, ProfileConfig
from features.definitions import Definitions, FieldDefinition, ViewDefinition
from features.expressions import parse_expression
from features.spec import Feature
from runtime.errors import ConfigurationError

_WHOLE_TYPES = ("INT32", "INT64", "FLOAT", "DOUBLE")
_FRACTION_TYPES = ("FLOAT", "DOUBLE")


def aggregate_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    sources = [aggregate.push_source for aggregate in config.aggregates]
    for aggregate in config.aggregates:
        key = f"aggregates.{aggregate.push_source}"
        if sources.count(aggregate.push_source) > 1:
            yield key, "stands twice; one table feeds a push source"
        views = {n: v for n, v in definitions.views.items() if v.push_source == aggregate.push_source}
        if not views:
            known = sorted({v.push_source for v in definitions.views.values() if v.push_source})
            yield key, f"no push source of a view {aggregate.push_source!r}; there is {', '.join(known) or 'none'}"
        for name, view in views.items():
            yield from ((key, fault) for fault in view_faults(aggregate, name, view, entities[aggregate.entity]))
        for column, text in aggregate.columns.items():
            fields = [view.fields[column] for view in views.values() if column in view.fields]
            faults = _column_faults(text, fields, decays=aggregate.half_life_seconds is not None)
            yield from ((f"{key}.columns.{column}", fault) for fault in faults)


def value_before_examples(feature: Feature, config: FeaturesConfig, definitions: Definitions) -> float:
    """What a dense feature is where no example was aggregated: the prior of a rate, else 0."""
    view = definitions.views.get(feature.view)
    for aggregate in config.aggregates:
        if view and view.push_source == aggregate.push_source and feature.feature in aggregate.columns:
            with suppress(ConfigurationError):  # named by `aggregate_faults`
                return parse_expression(aggregate.columns[feature.feature]).prior
    return 0.0


def view_faults(
    aggregate: AggregateConfig | ProfileConfig, name: str, view: ViewDefinition, entity: str
) -> Iterator[str]:
    """Why the view of a table's push source cannot take its columns. `entity`: Feast's name of it."""
    if view.entities != (entity,):
        yield f"view {name!r} must have the entity {entity!r}; it has {', '.join(view.entities)}"
    if set(view.fields) != set(aggregate.columns):
        yield (
            f"its columns must be the features of view {name!r}, which are written whole: "
            f"{', '.join(sorted(view.fields))}; got {', '.join(sorted(aggregate.columns))}"
        )
    if not view.timestamp_field:
        yield f"the batch source of view {name!r} must name its timestamp_field in the repository"


def _column_faults(text: str, fields: list[FieldDefinition], *, decays: bool) -> Iterator[str]:
    try:
        is_whole = parse_expression(text).kind == "count" and not decays
    except ConfigurationError as error:
        yield str(error)
        return
    allowed = _WHOLE_TYPES if is_whole else _FRACTION_TYPES
    for field in fields:
        if field.value_type not in allowed:
            what = f"{text} with a half-life" if decays else text
            yield f"{what} needs a field of type {', '.join(allowed)}; it is {field.value_type}"
