"""Pushes profiles to the online store and logs them. Importing this module imports Feast."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from features.config import ProfileConfig
from features.ids import Entity, EntityId
from features.push import FeastPusher
from features.push_log import PushLog
from features.pushed_values import PushedValues

_OWNER = "profiles"
"""Of the push log: profiles are of no join state, and outlive a new one."""


class LoggedPusher:
    """Writes through Feast's push sources, and to the push log of each view. Needs an applied repository."""

    def __init__(self, repo: Path, redis_url: str, configs: Sequence[ProfileConfig]) -> None:
        self._pusher = FeastPusher(repo, redis_url, configs)
        self._log = PushLog(self._pusher.tables, configs)
        self._log.begin(_OWNER)

    def push(self, profiles: PushedValues, ids: Mapping[Entity, Sequence[EntityId]], shown_ms: int) -> None:
        """Write the profiles of these ids, which impressions up to `shown_ms` did not read.

        May be repeated. ServiceUnavailableError without Redis.
        """
        self._pusher.push(profiles, ids, shown_ms)
        self._log.append(profiles, ids, shown_ms)

    def close(self) -> None:
        """End the log's files, so that all of them can be collected."""
        self._log.close()
