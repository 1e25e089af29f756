"""Reads features for batches of rows from the hashes that Feast keeps in Redis: the stream's reader."""

from collections.abc import Mapping, Sequence

from features.contract import ContextValue
from features.lookup import Columns, Lookup
from features.redis_layout import EntityId
from features.spec import FeatureSpec
from runtime.redis import connect, exchange, reaching

_TIMEOUT_SECONDS = 5.0


class OnlineReader:
    """The features of B rows as they are now; the same values that Feast's get_online_features gives."""

    def __init__(self, spec: FeatureSpec, redis_url: str) -> None:
        self.spec = spec
        self._redis_url = redis_url
        self._lookup = Lookup(spec)
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
        query = self._lookup.query(user_ids, item_ids)
        commands = self._lookup.commands(query)
        with reaching(self._redis_url):
            replies = exchange(self._client, commands) if commands else []
        return self._lookup.columns(query, replies, contexts)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()
