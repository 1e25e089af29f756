"""The running aggregates that Redis holds: rows of the views that push sources feed, and whose state they are of.

    key    graft:aggregates:{Feast project}    value  the name of the join state that made them, their *owner*

Redis has room for one owner's rows: a hash is that of an entity, and the scorer that reads it knows of no owner. So a
new state removes another's rows before it reads any (`claim`), and who has lost them stops (`OwnedPusher`). The
decision: docs/decisions/009-starting-over.md.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from features.aggregates import Aggregates
from features.config import AggregateConfig, ProfileConfig
from features.online.redis_layout import EntityLayout, begin_field, field_name
from features.push.push_order import OrderedClient, in_order, owner_key, position_key, taken_error, too_late_is_stale
from features.repo.push_log import PushLog
from features.spec import Entity, EntityId, FeatureSpec, usable_id
from runtime.compute import batched
from runtime.redis import connect, literal, reaching

_SCAN_KEYS = 1_000  # of one round trip


class _View(NamedTuple):
    """Where the rows of one push source are."""

    entity: Entity
    layout: EntityLayout
    fields: list[bytes]


class ViewRows:
    """The rows that the push sources of `configs` feed; `views` names each source's view.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(
        self,
        redis_url: str,
        spec: FeatureSpec,
        views: Mapping[str, str],
        configs: Sequence[AggregateConfig | ProfileConfig],
    ) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._views = [_view(spec, views[config.push_source], config) for config in configs]

    def count(self) -> int:
        """How many rows there are."""
        with reaching(self._url):
            return sum(self._exists(view, keys) for view in self._views for keys in self._keys(view.layout))

    def remove(self) -> int:
        """Remove them all; how many there were."""
        removed = 0
        with reaching(self._url):
            for view in self._views:
                for keys in self._keys(view.layout):
                    removed += _removed(view, keys, self._client)
        return removed

    def remove_of(self, ids: Mapping[Entity, Sequence[EntityId]], client: Any) -> int:
        """Remove the rows of these entities by a client of the caller's; how many there were."""
        removed = 0
        with reaching(self._url):
            for view in self._views:
                usable = (usable_id(entity_id, view.layout.id_type) for entity_id in ids.get(view.entity, ()))
                keys = [view.layout.key(entity_id) for entity_id in usable if entity_id is not None]
                removed += _removed(view, keys, client) if keys else 0
        return removed

    def _keys(self, layout: EntityLayout) -> Iterator[list[bytes]]:
        """The keys of an entity's hashes, some at a time."""
        found = self._client.scan_iter(match=layout.pattern, count=_SCAN_KEYS, _type="HASH")
        keys = (key for key in found if layout.has(key))
        yield from batched(keys, _SCAN_KEYS)

    def _exists(self, view: _View, keys: Sequence[bytes]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hexists(key, view.fields[-1])  # type: ignore[arg-type] # bytes are fields, too
        return sum(pipeline.execute())


def _removed(view: _View, keys: Sequence[bytes], client: Any) -> int:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hdel(key, *view.fields)
    return sum(map(bool, pipeline.execute()[-len(keys) :]))


def _view(spec: FeatureSpec, name: str, config: AggregateConfig | ProfileConfig) -> _View:
    is_user = config.entity == "user"
    join_key, id_type = (spec.user_join_key, spec.user_id_type) if is_user else (spec.item_join_key, spec.item_id_type)
    fields = [*(field_name(name, column) for column in config.columns), begin_field(name)]
    return _View(config.entity, EntityLayout(spec.feast_project, join_key, id_type, fields), fields)


_log = logging.getLogger(__name__)
_CLAIM_SECONDS = 60  # above what a scan of 10 million keys takes; a killed process holds a claim no longer


class PushedRows:
    """The rows that the push sources of `configs` feed; `views` names each source's view.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(
        self, redis_url: str, spec: FeatureSpec, views: Mapping[str, str], configs: Sequence[AggregateConfig]
    ) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self.feast_project = spec.feast_project
        self._key = owner_key(spec.feast_project)
        self._rows = ViewRows(redis_url, spec, views, configs)

    def owner(self) -> str | None:
        """The name of the state that made the rows; None where nobody has noted one."""
        with reaching(self._url):
            found: Any = self._client.get(self._key)
        return found.decode() if found else None

    def count(self) -> int:
        """How many rows there are."""
        return self._rows.count()

    def remove(self) -> int:
        """Remove all rows, then the owner's name; how many rows there were. Other features of an entity stay."""
        self._forget_positions()
        removed = self._rows.remove()
        with reaching(self._url):
            self._client.delete(self._key)
        return removed

    def remove_of(self, ids: Mapping[Entity, Sequence[EntityId]], owner: str, positions: Mapping[int, int]) -> int:
        """Remove the rows of these entities; how many there were. Other features of an entity stay.

        It is a push of these positions, and comes in order as others do.
        """
        client = OrderedClient(self._client, self.feast_project, owner, positions)
        with too_late_is_stale(positions):
            return self._rows.remove_of(ids, client)

    def claim(self, owner: str, *, is_new: bool) -> None:
        """Make `owner` the owner. One that is new, which has made no row yet, first removes another's.

        GraftError when they belong to another one, and this one is not new. Where no name is noted, as by earlier
        versions, they are taken for the owner's own unless it is new.
        """
        with reaching(self._url), self._client.lock(f"{self._key}:claim", timeout=_CLAIM_SECONDS):
            found = self.owner()
            if found == owner:
                if is_new:  # on a broker whose topics have no ids
                    self._forget_positions()
                return
            if is_new:
                if removed := self.remove():
                    _log.warning("%d rows of running aggregates of another stream, %s, removed", removed, found)
            elif found is not None:
                raise taken_error(owner, found)
            self._client.set(self._key, owner)

    def _forget_positions(self) -> None:
        """Let a state begin anew, with positions that begin anew."""
        with reaching(self._url):
            for key in self._client.scan_iter(match=literal(position_key(self.feast_project, "").encode()) + b"*"):
                self._client.delete(key)


class Pusher(Protocol):
    """Writes the rows of changed entities to the online store of `store`, a feature store of Feast."""

    @property
    def store(self) -> Any:
        """Where it writes."""
        ...

    def push(self, aggregates: Aggregates, changed: Mapping[Entity, Sequence[EntityId]], event_time_ms: int) -> int:
        """Write their absolute values; the number of rows."""
        ...


class OwnedPusher:
    """A pusher that writes as long as the rows are those of the owner that claimed them, and none out of order.

    `log` gets what was pushed.
    """

    def __init__(self, pusher: Pusher, rows: PushedRows, log: PushLog) -> None:
        self._pusher, self._rows, self._log, self._owner = pusher, rows, log, ""

    def claim(self, owner: str, *, is_new: bool) -> None:
        """As `PushedRows.claim`; before the first push, and before the first read of features."""
        self._rows.claim(owner, is_new=is_new)
        self._owner = owner
        self._log.begin(owner)

    def push(
        self,
        aggregates: Aggregates,
        changed: Mapping[Entity, Sequence[EntityId]],
        shown_ms: int,
        positions: Mapping[int, int],
    ) -> int:
        """Write absolute values, and remove the rows of entities without a state; the number of rows written.

        The values are of these positions: partition -> position in its updates. GraftError when another stream has
        claimed the rows since; StalePushError when a later push has come.
        """
        present = {e: [one for one in ids if aggregates.has(e, one)] for e, ids in changed.items()}
        absent = {e: [one for one in ids if not aggregates.has(e, one)] for e, ids in changed.items()}
        self._rows.remove_of(absent, self._owner, positions)
        with in_order(self._pusher.store, self._rows.feast_project, self._owner, positions):
            pushed = self._pusher.push(aggregates, present, shown_ms)
        self._log.append(aggregates, changed, shown_ms)
        return pushed
