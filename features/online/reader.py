"""Reads features from the hashes that Feast keeps in Redis: what both readers share, and the stream's reader.

B rows, E distinct entities. Columns hold raw values, None where an entity, a field or a context value is missing.
"""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol

from prometheus_client import Counter

from features.contract import ContextValue, context_name
from features.online.redis_layout import (
    EntityLayout,
    begin_field,
    decode_begin_ms,
    decode_column,
    decode_value,
    field_name,
)
from features.spec import REQUEST_SOURCES, Entity, EntityId, Feature, FeatureSpec, IdType, Value, usable_id
from runtime.redis import connect, exchange, reaching

LATER_ROWS = Counter(
    "graft_features_later_rows_total", "Batch rows that begin after the impression; read as a miss", ["view"]
)

_log = logging.getLogger(__name__)
_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_cached_begin_ms = lru_cache(maxsize=1 << 16)(decode_begin_ms)  # a table has few distinct times


class LaterRows:
    """Finds rows of a batch view that begin after the impression for which they were read: they are never its features.

    The online store has one row of an entity, the newest. To an impression that is older it would tell the future,
    above all when history is replayed. What the row has replaced is no longer known, so the values are missing. They
    are counted, and the first of each view is logged.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def find(
        self, view: str, begins: Sequence[bytes | None], rows_B: Sequence[int], event_times_ms: Sequence[int]
    ) -> list[int]:
        """Which of the B impressions have a later row.

        `begins`: for each entity the time from which its row holds, as Feast stores it. `rows_B`: their entities.
        """
        begins_ms = [_cached_begin_ms(begin) if begin else None for begin in begins]
        later = [
            number
            for number, (entity, shown_ms) in enumerate(zip(rows_B, event_times_ms, strict=True))
            if (begin_ms := begins_ms[entity]) is not None and begin_ms > shown_ms
        ]
        if later:
            LATER_ROWS.labels(view).inc(len(later))
            self._log_first(view, begins_ms[rows_B[later[0]]] or 0, event_times_ms[later[0]])
        return later

    def _log_first(self, view: str, begin_ms: int, shown_ms: int) -> None:
        if view in self._logged:
            return
        self._logged.add(view)
        _log.warning(
            "feature view %s: a row that begins at %s is missing to an impression of %s; further ones are counted in "
            "graft_features_later_rows_total; before a replay of history 'graft features materialize --until' loads "
            "the rows of its beginning",
            view,
            _1970 + timedelta(milliseconds=begin_ms),
            _1970 + timedelta(milliseconds=shown_ms),
        )


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


class TimedFeatureReader(Protocol):
    """Reads the features of B rows as they are now, as far as each row's event time may know them."""

    def read_at(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
        event_times_ms: Sequence[int],
    ) -> Columns:
        """As `FeatureReader.read`, without the values of a batch view's row that begins after a row's event time."""
        ...


class Query(NamedTuple):
    """The distinct entities of B rows, and where each row finds its own; one row where all rows share it."""

    users: list[EntityId | None]
    user_rows_B: list[int]
    items: list[EntityId | None]
    item_rows_B: list[int]


class Dated(NamedTuple):
    """Columns of one user's B rows, and when what is stored of them begins."""

    columns: Columns
    begins_ms: Mapping[str, Sequence[int | None]]
    """Feast view -> for each row the event time from which its values hold; None where nothing is stored."""


class _EntityColumns(NamedTuple):
    """Of E entities: each feature's values, their ids among them; when a timed view's rows begin, as Feast has it."""

    values: Mapping[str, Sequence[Value]]
    begins: Mapping[str, Sequence[bytes | None]]


class _Stored:
    """What is stored of the users or of the items."""

    def __init__(self, spec: FeatureSpec, source: Entity, timed_views: Collection[str]) -> None:
        is_user = source == "user"
        join_key, id_type = (
            (spec.user_join_key, spec.user_id_type) if is_user else (spec.item_join_key, spec.item_id_type)
        )
        self._features = tuple(f for f in spec.features if f.source == source)
        self._id_names = tuple(f.name for f in spec.features if f.source == f"{source}_id")
        self._timed = tuple(view for view in dict.fromkeys(f.view for f in self._features) if view in timed_views)
        fields = [*(field_name(f.view, f.feature) for f in self._features), *map(begin_field, self._timed)]
        self.layout = EntityLayout(spec.feast_project, join_key, id_type, fields)
        self._miss: Sequence[bytes | None] = (None,) * self.layout.width

    def commands(self, ids: Sequence[EntityId | None]) -> list[bytes]:
        """What reads these entities; nothing where the spec has no features of them."""
        if not self.layout.width:
            return []
        return [self.layout.read_command(entity_id) for entity_id in ids if entity_id is not None]

    def fit(self, ids: Sequence[EntityId | None], replies: Iterator[Reply]) -> bool:
        """Whether the next replies are some to `commands`: each a value or a miss for each field, or none at all."""
        for entity_id in ids if self.layout.width else ():
            reply = None if entity_id is None else next(replies)
            if reply is not None and not (isinstance(reply, list) and len(reply) == self.layout.width):
                return False
        return True

    def values(self, entity_id: EntityId | None, replies: Iterator[Reply]) -> dict[str, Value]:
        """What the next reply says of one entity: a value of each feature."""
        values: dict[str, Value] = dict.fromkeys(self._id_names, entity_id)
        reply = next(replies, None) if self._features and entity_id is not None else None
        for feature, raw in zip(self._features, reply or self._miss, strict=False):  # then come times
            values[feature.name] = decode_value(feature, raw) if raw else None
        return values

    def columns(self, ids: Sequence[EntityId | None], replies: Iterator[Reply]) -> _EntityColumns:
        """What the next replies say of these entities."""
        rows = [(entity_id is not None and self._features and next(replies, None)) or self._miss for entity_id in ids]
        raws = list(zip(*rows, strict=True)) if rows else [()] * self.layout.width
        size = len(self._features)
        values: dict[str, Sequence[Value]] = dict.fromkeys(self._id_names, ids)
        for feature, raw in zip(self._features, raws[:size], strict=True):
            values[feature.name] = decode_column(feature, raw)
        return _EntityColumns(values, dict(zip(self._timed, raws[size:], strict=True)))


class Lookup:
    """Turns rows of ids into commands, and their replies into columns. Holds no connection.

    `timed_views`: of their rows the time is read, too, from which they hold.
    """

    def __init__(self, spec: FeatureSpec, timed_views: Collection[str] = ()) -> None:
        self._spec = spec
        self._context = tuple(f for f in spec.features if f.source == "context")
        self._user = _Stored(spec, "user", timed_views)
        self._item = _Stored(spec, "item", timed_views)
        self._later = LaterRows()

    def query(self, user_ids: Sequence[EntityId], item_ids: Sequence[EntityId]) -> Query:
        """The distinct entities of B rows; a single user id stands for all rows."""
        return Query(*_distinct(user_ids, self._spec.user_id_type), *_distinct(item_ids, self._spec.item_id_type))

    def item_of(self, key: bytes) -> EntityId | None:
        """The id of the item that is stored there; None where none is."""
        return self._item.layout.id_of(key)

    def commands(self, query: Query) -> list[bytes]:
        """One HMGET per distinct entity that can be stored: users, then items."""
        return self.user_commands(query) + self.item_commands(query)

    def user_commands(self, query: Query) -> list[bytes]:
        """Those of `commands` that read users."""
        return self._user.commands(query.users)

    def item_commands(self, query: Query) -> list[bytes]:
        """Those of `commands` that read items."""
        return self._item.commands(query.items)

    def fit(self, query: Query, replies: Sequence[Reply]) -> bool:
        """Whether these can be replies to `commands`: a server that is no Redis, or out of step, gives others."""
        following = iter(replies)
        return self._user.fit(query.users, following) and self._item.fit(query.items, following)

    def columns(
        self,
        query: Query,
        replies: Sequence[Reply],
        contexts: Sequence[Mapping[str, ContextValue]],
        event_times_ms: Sequence[int] | None = None,
    ) -> Columns:
        """Columns of B rows; those of a single user or context have the one value that all rows share.

        `replies` answer `commands(query)`, in order; without any, all stored values miss. With event times, each row
        has one, and none of the values of a timed view's row that begins later.
        """
        following = iter(replies)
        users = self._user.columns(query.users, following)
        items = self._item.columns(query.items, following)
        columns: Columns = {}
        for feature in self._spec.features:
            if feature.source == "context":
                columns[feature.name] = _context_column(feature, contexts)
            elif feature.source in REQUEST_SOURCES:
                columns[feature.name] = _rows_of(users.values[feature.name], query.user_rows_B)
            else:
                columns[feature.name] = _rows_of(items.values[feature.name], query.item_rows_B)
        if event_times_ms is not None:
            self._leave_out(columns, users.begins, query.user_rows_B, event_times_ms)
            self._leave_out(columns, items.begins, query.item_rows_B, event_times_ms)
        return columns

    def dated(self, query: Query, replies: Sequence[Reply], context: Mapping[str, ContextValue]) -> Dated:
        """The columns of one user's and one context's B rows, with a value for each, and the times of timed views."""
        following = iter(replies)
        users = self._user.columns(query.users, following)
        items = self._item.columns(query.items, following)
        size = len(query.item_rows_B)
        columns = {
            **{name: [*values] * size for name, values in users.values.items()},
            **{feature.name: _context_column(feature, [context]) * size for feature in self._context},
            **{name: [values[row] for row in query.item_rows_B] for name, values in items.values.items()},
        }
        user_ms = {view: [_begin_ms(begins[0])] * size for view, begins in users.begins.items()}
        item_ms = {view: [_begin_ms(begins[row]) for row in query.item_rows_B] for view, begins in items.begins.items()}
        return Dated({f.name: columns[f.name] for f in self._spec.features}, user_ms | item_ms)

    def request_values(
        self, query: Query, replies: Iterator[Reply], context: Mapping[str, ContextValue]
    ) -> dict[str, Value]:
        """The values of the query's one user and of one context; takes the reply to `user_commands`."""
        values = self._user.values(query.users[0], replies)
        for feature in self._context:
            values[feature.name] = context_value(feature, context.get(context_name(feature)))
        return values

    def item_columns(self, query: Query, replies: Iterator[Reply]) -> Mapping[str, Sequence[Value]]:
        """The columns of the query's items; takes the replies to `item_commands`."""
        return self._item.columns(query.items, replies).values

    def _leave_out(
        self,
        columns: Columns,
        begins: Mapping[str, Sequence[bytes | None]],
        rows_B: Sequence[int],
        event_times_ms: Sequence[int],
    ) -> None:
        """Make the values of later rows missing."""
        for view, times in begins.items():
            for row in self._later.find(view, times, rows_B, event_times_ms):
                for feature in self._spec.features:
                    if feature.view == view:
                        columns[feature.name][row] = None


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


def _begin_ms(stored: bytes | None) -> int | None:
    return decode_begin_ms(stored) if stored else None


def _distinct(ids: Sequence[EntityId], id_type: IdType) -> tuple[list[EntityId | None], list[int]]:
    places: dict[EntityId | None, int] = {}
    rows = [places.setdefault(usable_id(entity_id, id_type), len(places)) for entity_id in ids]
    return list(places), rows


def _rows_of(values: Sequence[Value], rows_B: Sequence[int]) -> list[Value]:
    """The entities' values row by row. As many of each: the rows are the entities, in order."""
    return list(values) if len(values) == len(rows_B) else [values[row] for row in rows_B]


def _context_column(feature: Feature, contexts: Sequence[Mapping[str, ContextValue]]) -> list[Value]:
    name = context_name(feature)
    return [context_value(feature, context.get(name)) for context in contexts]


_TIMEOUT_SECONDS = 5.0


class OnlineReader:
    """The features of B rows; as they are now, the same values that Feast's get_online_features gives.

    `pushed_views`: views of running aggregates. Their rows are of closed examples, so none of them is later than the
    impressions for which they are read. Nor is the row of a profile, which tells nothing of any label.
    """

    def __init__(self, spec: FeatureSpec, redis_url: str, pushed_views: Collection[str] = ()) -> None:
        self.spec = spec
        self._redis_url = redis_url
        timed = {f.view for f in spec.features if f.view and not f.profile_of}
        self._lookup = Lookup(spec, timed.difference(pushed_views))
        self._client = connect(redis_url, timeout_seconds=_TIMEOUT_SECONDS)

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Columns:
        """Columns of B rows in one round trip over their distinct entities; None where a value is missing.

        A key of another type counts as missing. ServiceUnavailableError when Redis does not answer within 5 s.
        """
        query, replies = self._ask(user_ids, item_ids)
        return self._lookup.columns(query, replies, contexts)

    def read_at(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
        event_times_ms: Sequence[int],
    ) -> Columns:
        """As `read`; None also where the newest row of a batch view begins after the event time, counted."""
        query, replies = self._ask(user_ids, item_ids)
        return self._lookup.columns(query, replies, contexts, event_times_ms)

    def _ask(self, user_ids: Sequence[EntityId], item_ids: Sequence[EntityId]) -> tuple[Query, list[Reply]]:
        query = self._lookup.query(user_ids, item_ids)
        commands = self._lookup.commands(query)
        with reaching(self._redis_url):
            return query, exchange(self._client, commands) if commands else []

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()
