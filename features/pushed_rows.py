"""The running aggregates that Redis holds: rows of the views that push sources feed, and whose state they are of.

    key    graft:aggregates:{Feast project}    value  the name of the join state that made them, their *owner*

Redis has room for one owner's rows: a hash is that of an entity, and the scorer that reads it knows of no owner. So a
new state removes another's rows before it reads any (`claim`), and who has lost them stops (`OwnedPusher`). The
decision: docs/decisions/009-starting-over.md.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from features.aggregates import Aggregates, Entity, EntityId
from features.config import AggregateConfig
from features.push_log import PushLog
from features.redis_layout import EntityLayout, begin_field, field_name, usable_id
from features.spec import FeatureSpec
from runtime.errors import GraftError
from runtime.redis import connect, reaching

_log = logging.getLogger(__name__)
_SCAN_KEYS = 1_000  # of one round trip
_CLAIM_SECONDS = 60  # above what a scan of 10 million keys takes; a killed process holds a claim no longer


class _Pushed(NamedTuple):
    """Where the rows of one push source are."""

    entity: Entity
    layout: EntityLayout
    fields: list[bytes]


class PushedRows:
    """The rows that the push sources of `configs` feed; `views` names each source's view.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(
        self, redis_url: str, spec: FeatureSpec, views: Mapping[str, str], configs: Sequence[AggregateConfig]
    ) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._key = f"graft:aggregates:{spec.feast_project}"
        self._pushed = [_pushed(spec, views[config.push_source], config) for config in configs]

    def owner(self) -> str | None:
        """The name of the state that made the rows; None where nobody has noted one."""
        with reaching(self._url):
            found: Any = self._client.get(self._key)
        return found.decode() if found else None

    def count(self) -> int:
        """How many rows there are."""
        with reaching(self._url):
            return sum(self._exists(pushed, keys) for pushed in self._pushed for keys in self._keys(pushed.layout))

    def remove(self) -> int:
        """Remove all rows, then the owner's name; how many rows there were. Other features of an entity stay."""
        removed = 0
        with reaching(self._url):
            for pushed in self._pushed:
                for keys in self._keys(pushed.layout):
                    removed += self._removed(pushed, keys)
            self._client.delete(self._key)
        return removed

    def remove_of(self, ids: Mapping[Entity, Sequence[EntityId]]) -> int:
        """Remove the rows of these entities; how many there were. Other features of an entity stay."""
        removed = 0
        with reaching(self._url):
            for pushed in self._pushed:
                usable = (usable_id(entity_id, pushed.layout.id_type) for entity_id in ids.get(pushed.entity, ()))
                keys = [pushed.layout.key(entity_id) for entity_id in usable if entity_id is not None]
                removed += self._removed(pushed, keys)
        return removed

    def claim(self, owner: str, *, is_new: bool) -> None:
        """Make `owner` the owner. One that is new, which has made no row yet, first removes another's.

        GraftError when they belong to another one, and this one is not new. Where no name is noted, as by earlier
        versions, they are taken for the owner's own unless it is new.
        """
        with reaching(self._url), self._client.lock(f"{self._key}:claim", timeout=_CLAIM_SECONDS):
            found = self.owner()
            if found == owner:
                return
            if is_new:
                if removed := self.remove():
                    _log.warning("%d rows of running aggregates of another stream, %s, removed", removed, found)
            elif found is not None:
                raise self._taken(owner, found)
            self._client.set(self._key, owner)

    def check(self, owner: str) -> None:
        """GraftError when the rows belong to another owner by now."""
        found = self.owner()
        if found is None:  # Redis was emptied
            with reaching(self._url):
                self._client.set(self._key, owner)
        elif found != owner:
            raise self._taken(owner, found)

    def _taken(self, owner: str, found: str) -> GraftError:
        return GraftError(
            f"the running aggregates in Redis belong to the stream of {found}, and this is the stream of {owner}: "
            "stop one of the two, or give each a Redis database or a Feast project of its own; to go on with this one, "
            "stop the other, then 'graft reset --aggregates'"
        )

    def _keys(self, layout: EntityLayout) -> Iterator[list[bytes]]:
        """The keys of an entity's hashes, some at a time."""
        found = self._client.scan_iter(match=layout.pattern, count=_SCAN_KEYS, _type="HASH")
        keys = (key for key in found if layout.has(key))
        while some := list(islice(keys, _SCAN_KEYS)):
            yield some

    def _removed(self, pushed: _Pushed, keys: Sequence[bytes]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hdel(key, *pushed.fields)  # type: ignore[arg-type] # bytes are fields, too
        return sum(map(bool, pipeline.execute()))

    def _exists(self, pushed: _Pushed, keys: Sequence[bytes]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hexists(key, pushed.fields[-1])  # type: ignore[arg-type] # bytes are fields, too
        return sum(pipeline.execute())


class Pusher(Protocol):
    """Writes the rows of changed entities."""

    def push(self, aggregates: Aggregates, changed: Mapping[Entity, Sequence[EntityId]], event_time_ms: int) -> int:
        """Write their absolute values; the number of rows."""
        ...


class OwnedPusher:
    """A pusher that writes as long as the rows are those of the owner that claimed them; `log` gets what was pushed."""

    def __init__(self, pusher: Pusher, rows: PushedRows, log: PushLog) -> None:
        self._pusher, self._rows, self._log, self._owner = pusher, rows, log, ""

    def claim(self, owner: str, *, is_new: bool) -> None:
        """As `PushedRows.claim`; before the first push, and before the first read of features."""
        self._rows.claim(owner, is_new=is_new)
        self._owner = owner
        self._log.begin(owner)

    def push(self, aggregates: Aggregates, changed: Mapping[Entity, Sequence[EntityId]], event_time_ms: int) -> int:
        """Write absolute values, and remove the rows of entities without a state; the number of rows written.

        GraftError when another stream has claimed the rows since.
        """
        self._rows.check(self._owner)
        present = {e: [one for one in ids if aggregates.has(e, one)] for e, ids in changed.items()}
        self._rows.remove_of({e: [one for one in ids if not aggregates.has(e, one)] for e, ids in changed.items()})
        pushed = self._pusher.push(aggregates, present, event_time_ms)
        self._log.append(aggregates, changed, event_time_ms)
        return pushed


def _pushed(spec: FeatureSpec, view: str, config: AggregateConfig) -> _Pushed:
    is_user = config.entity == "user"
    join_key, id_type = (spec.user_join_key, spec.user_id_type) if is_user else (spec.item_join_key, spec.item_id_type)
    fields = [*(field_name(view, column) for column in config.columns), begin_field(view)]
    return _Pushed(config.entity, EntityLayout(spec.feast_project, join_key, id_type, fields), fields)
