"""Reads features for batches of rows from the hashes that Feast keeps in Redis: the stream's reader."""

from collections.abc import Collection, Mapping, Sequence

from features.contract import ContextValue
from features.ids import EntityId
from features.lookup import Columns, Lookup, Query, Reply
from features.spec import FeatureSpec
from runtime.redis import connect, exchange, reaching

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
