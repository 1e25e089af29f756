"""Keeps profiles fresh: those of ids that are new in the batch tables, that were asked for, or that are old."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import Counter

from features.config import ProfileConfig
from features.repo.push_log import PushedValues
from features.spec import Entity, EntityId
from runtime.errors import InvalidInputError
from stream.events import TeacherRequest
from teacher_cache.profiles.profile_queue import ProfileQueue
from teacher_cache.profiles.profiles import Profiler, draw_references

PASS_IDS = 256
"""Of each table in one pass, so that the logits of requests do not wait long for profiles."""

_LOG = logging.getLogger(__name__)
_PROFILES = Counter("graft_teacher_profiles", "Profiles that were computed and pushed.", ["push_source"])


class ProfilePusher(Protocol):
    """Writes profiles to the online store and to the push log."""

    def push(self, profiles: PushedValues, ids: Mapping[Entity, Sequence[EntityId]], shown_ms: int) -> None:
        """Write those of these ids; again is the same. ServiceUnavailableError without Redis.

        `shown_ms`: event time of the newest impression that did not read them yet.
        """
        ...


class BatchTables(Protocol):
    """The batch tables of the feature repository."""

    def stamp(self) -> object:
        """Equal to an earlier one as long as the tables are the same."""
        ...

    def ids(self) -> Mapping[Entity, Sequence[EntityId]]:
        """The users and the items that they have."""
        ...


class ProfileTable(NamedTuple):
    """One `[[features.profiles]]` table, and the ids that wait for it."""

    config: ProfileConfig
    queue: ProfileQueue

    @property
    def referred(self) -> Entity:
        """Whose ids are references."""
        return "item" if self.config.entity == "user" else "user"


class ProfileScorer:
    """All profiles of a project.

    Every method raises ServiceUnavailableError without Redis, and may be repeated then.
    """

    def __init__(
        self, tables: Sequence[ProfileTable], profiler: Profiler, pusher: ProfilePusher, batch_tables: BatchTables
    ) -> None:
        self._tables, self._profiler, self._pusher, self._batch_tables = tables, profiler, pusher, batch_tables
        self._stamp: object = None

    def ask(self, requests: Sequence[TeacherRequest]) -> None:
        """Have the users and items of these requests scored, as far as they never were; at least one request."""
        ids: dict[Entity, list[EntityId]] = {
            "user": list(dict.fromkeys(request.user_id for request in requests)),
            "item": list(dict.fromkeys(request.item_id for request in requests)),
        }
        newest_ms = max(request.event_time_ms for request in requests)
        for config, queue in self._tables:
            queue.add(ids[config.entity])
            queue.see(newest_ms)

    def refresh(self) -> int:
        """Score what is due, `PASS_IDS` of each table at most; how many ids were due.

        InvalidInputError when the batch tables have no id that could be a reference.
        """
        self._add_known()
        return sum(self._score(table, self._references(table)) for table in self._tables)

    def _add_known(self) -> None:
        """Have the ids of the batch tables scored when these have changed."""
        stamp = self._batch_tables.stamp()
        if stamp != self._stamp:
            ids = self._batch_tables.ids()
            for config, queue in self._tables:
                queue.add(ids[config.entity])
            self._stamp = stamp

    def _references(self, table: ProfileTable) -> list[EntityId]:
        """Those that were drawn first; drawn now where there are none, as in a Redis that was emptied."""
        if references := table.queue.references():
            return references
        ids = self._batch_tables.ids()
        if not ids[table.referred]:
            raise InvalidInputError(
                f"features.profiles of {table.config.push_source}: the batch tables have no {table.referred}; its "
                f"references are drawn from them: add a table of {table.referred}s to the feature repository"
            )
        table.queue.add(ids[table.config.entity])
        table.queue.begin(draw_references(ids[table.referred], table.config.references))
        return table.queue.references()

    def _score(self, table: ProfileTable, references: Sequence[EntityId]) -> int:
        config, queue = table
        due = queue.due(time.time(), PASS_IDS)
        if due:
            profiles = self._profiler.profiles(config, due, references)
            self._pusher.push(profiles, {config.entity: list(profiles.of)}, queue.shown_ms())
            queue.done(due, time.time())
            _PROFILES.labels(config.push_source).inc(len(profiles.of))
            _LOG.info("profiles push_source=%s ids=%d scored=%d", config.push_source, len(due), len(profiles.of))
        return len(due)
