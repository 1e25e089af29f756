"""Whether the `[[features.profiles]]` tables fit the views that they feed."""

from collections.abc import Iterator, Mapping

from features.aggregate_check import view_faults
from features.config import FeaturesConfig
from features.definitions import Definitions

_TYPES = ("FLOAT", "DOUBLE", "FLOAT_LIST", "DOUBLE_LIST")


def profile_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    fed = [table.push_source for table in config.aggregates] + [table.push_source for table in config.profiles]
    for profile in config.profiles:
        key = f"profiles.{profile.push_source}"
        if fed.count(profile.push_source) > 1:
            yield key, "stands twice; one table feeds a push source"
        if any(other.entity == profile.entity for other in config.profiles if other is not profile):
            yield (
                key,
                f"another table has profiles of the {profile.entity}, too; put all columns into one view and table",
            )
        views = {n: v for n, v in definitions.views.items() if v.push_source == profile.push_source}
        if not views:
            known = sorted({v.push_source for v in definitions.views.values() if v.push_source})
            yield key, f"no push source of a view {profile.push_source!r}; there is {', '.join(known) or 'none'}"
        for name, view in views.items():
            yield from ((key, fault) for fault in view_faults(profile, name, view, entities[profile.entity]))
            for column in profile.columns:
                if column in view.fields and view.fields[column].value_type not in _TYPES:
                    found = view.fields[column].value_type
                    yield f"{key}.columns.{column}", f"needs a field of type {', '.join(_TYPES)}; it is {found}"


def profile_of(config: FeaturesConfig, push_source: str, field: str) -> str:
    """The teacher task or vector whose mean a field of that push source's view is; "" where it is no profile."""
    return next((p.columns[field] for p in config.profiles if p.push_source == push_source and field in p.columns), "")
