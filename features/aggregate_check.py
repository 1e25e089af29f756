"""Whether the `[[features.aggregates]]` tables fit the views that they feed."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from features.config import FeaturesConfig
from features.definitions import Definitions, FieldDefinition
from features.expressions import parse_expression
from features.push_source_check import fed_fields, push_source_faults
from features.spec import Feature
from runtime.errors import ConfigurationError

_WHOLE_TYPES = ("INT32", "INT64", "FLOAT", "DOUBLE")
_FRACTION_TYPES = ("FLOAT", "DOUBLE")


def aggregate_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    fed = [aggregate.push_source for aggregate in config.aggregates]
    for aggregate in config.aggregates:
        key = f"aggregates.{aggregate.push_source}"
        for fault in push_source_faults(aggregate, fed, definitions, entities[aggregate.entity]):
            yield key, fault
        for column, text in aggregate.columns.items():
            fields = fed_fields(definitions, aggregate.push_source, column)
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
