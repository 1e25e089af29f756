"""What both readers share: the commands for a set of rows, and the columns out of the replies.

B rows, E distinct entities. Columns hold raw values, None where an entity, a field or a context value is missing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from features.contract import ContextValue, context_name
from features.redis_layout import EntityId, EntityLayout, IdType, field_name, usable_id
from features.spec import Feature, FeatureSpec, Value
from features.values import decode_column

Columns = dict[str, list[Value]]
Reply = Sequence[bytes | None] | None
"""One HMGET's answer: the stored message of each field; None: the key is not a hash."""


class FeatureReader(Protocol):
    """Reads the features of B rows as they are now."""

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Columns:
        """Columns of B rows, one for each feature of the spec. ServiceUnavailableError without Redis."""
        ...


class Query(NamedTuple):
    """The distinct entities of B rows, and where each row finds its own; one row where all rows share it."""

    users: list[EntityId | None]
    user_rows_B: list[int]
    items: list[EntityId | None]
    item_rows_B: list[int]


class Lookup:
    """Turns rows of ids into commands, and their replies into columns. Holds no connection."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec
        self._user_features = tuple(f for f in spec.features if f.source == "user")
        self._item_features = tuple(f for f in spec.features if f.source == "item")
        self._user = _layout(spec.feast_project, spec.user_join_key, spec.user_id_type, self._user_features)
        self._item = _layout(spec.feast_project, spec.item_join_key, spec.item_id_type, self._item_features)

    def query(self, user_ids: Sequence[EntityId], item_ids: Sequence[EntityId]) -> Query:
        """The distinct entities of B rows; a single user id stands for all rows."""
        return Query(*_distinct(user_ids, self._spec.user_id_type), *_distinct(item_ids, self._spec.item_id_type))

    def commands(self, query: Query) -> list[bytes]:
        """One HMGET per distinct entity that can be stored: users, then items."""
        commands: list[bytes] = []
        for layout, ids in ((self._user, query.users), (self._item, query.items)):
            if layout.width:
                commands += [layout.read_command(entity_id) for entity_id in ids if entity_id is not None]
        return commands

    def columns(
        self, query: Query, replies: Sequence[Reply], contexts: Sequence[Mapping[str, ContextValue]]
    ) -> Columns:
        """Columns of B rows; those of a single user or context have the one value that all rows share.

        `replies` answer `commands(query)`, in order; without any, all stored values miss.
        """
        following = iter(replies)
        user_columns = _stored(self._user_features, self._user, query.users, following)
        item_columns = _stored(self._item_features, self._item, query.items, following)
        columns: Columns = {}
        for feature in self._spec.features:
            if feature.source == "context":
                columns[feature.name] = _context_column(feature, contexts)
            elif feature.source in ("user", "user_id"):
                values = query.users if feature.source == "user_id" else user_columns[feature.name]
                columns[feature.name] = _rows_of(values, query.user_rows_B)
            else:
                values = query.items if feature.source == "item_id" else item_columns[feature.name]
                columns[feature.name] = _rows_of(values, query.item_rows_B)
        return columns


def context_value(feature: Feature, value: ContextValue | None) -> Value:
    """The value as the feature holds it: a 64-bit integer, a finite float, or a string; None for any other."""
    if value is None or isinstance(value, bool):
        return None
    if feature.dtype == "str":
        return value if isinstance(value, str) else None
    if isinstance(value, str):
        return None
    if feature.dtype == "int":
        return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None
    return float(value) if abs(value) < 2.0**1023 and math.isfinite(value) else None


def _layout(project: str, join_key: str, id_type: IdType, features: Sequence[Feature]) -> EntityLayout:
    return EntityLayout(project, join_key, id_type, [field_name(f.view, f.feature) for f in features])


def _distinct(ids: Sequence[EntityId], id_type: IdType) -> tuple[list[EntityId | None], list[int]]:
    places: dict[EntityId | None, int] = {}
    rows = [places.setdefault(usable_id(entity_id, id_type), len(places)) for entity_id in ids]
    return list(places), rows


def _stored(
    features: Sequence[Feature], layout: EntityLayout, ids: Sequence[EntityId | None], replies: Iterator[Reply]
) -> Mapping[str, Sequence[Value]]:
    """Each feature's values over E entities."""
    miss = (None,) * layout.width
    rows = [(entity_id is not None and features and next(replies, None)) or miss for entity_id in ids]
    if not rows:
        return {f.name: () for f in features}
    return {f.name: decode_column(f, raws) for f, raws in zip(features, zip(*rows, strict=True), strict=True)}


def _rows_of(values: Sequence[Value], rows_B: Sequence[int]) -> list[Value]:
    """The entities' values row by row. As many of each: the rows are the entities, in order."""
    return list(values) if len(values) == len(rows_B) else [values[row] for row in rows_B]


def _context_column(feature: Feature, contexts: Sequence[Mapping[str, ContextValue]]) -> list[Value]:
    name = context_name(feature)
    return [context_value(feature, context.get(name)) for context in contexts]
