"""The rows that Redis holds of some views: how many there are, and their removal. Other features of an entity stay."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from features.config import AggregateConfig, ProfileConfig
from features.ids import Entity, EntityId, usable_id
from features.redis_layout import EntityLayout, begin_field, field_name
from features.spec import FeatureSpec
from runtime.compute import batched
from runtime.redis import connect, reaching

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
