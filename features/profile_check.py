"""Whether the `[[features.profiles]]` tables fit the views that they feed."""

from collections.abc import Iterator, Mapping

from features.config import FeaturesConfig
from features.definitions import Definitions
from features.push_source_check import fed_fields, push_source_faults

_TYPES = ("FLOAT", "DOUBLE", "FLOAT_LIST", "DOUBLE_LIST")


def profile_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    fed = [one.push_source for one in config.aggregates] + [one.push_source for one in config.profiles]
    for profile in config.profiles:
        key = f"profiles.{profile.push_source}"
        for fault in push_source_faults(profile, fed, definitions, entities[profile.entity]):
            yield key, fault
        if any(other.entity == profile.entity for other in config.profiles if other is not profile):
            yield (
                key,
                f"another table has profiles of the {profile.entity}, too; put all columns into one view and table",
            )
        for column in profile.columns:
            for field in fed_fields(definitions, profile.push_source, column):
                if (found := field.value_type) not in _TYPES:
                    yield f"{key}.columns.{column}", f"needs a field of type {', '.join(_TYPES)}; it is {found}"


def profile_of(config: FeaturesConfig, push_source: str, field: str) -> str:
    """The teacher task or vector whose mean a field of that push source's view is; "" where it is no profile."""
    return next((p.columns[field] for p in config.profiles if p.push_source == push_source and field in p.columns), "")
