"""Keeps profiles fresh: those of ids that are new in the batch tables, that were asked for, or that are old.

Which are to be computed, and over which references, is noted in Redis for each `[[features.profiles]]` table:

    key    graft:profiles:{project}:{generation}:{table}:references   JSON: the ids drawn
    key    graft:profiles:{project}:{generation}:{table}:scored       sorted set: id as JSON -> seconds since 1970, or 0
    key    graft:profiles:{project}:{generation}:{table}:shown        event time of the newest teacher request, ms

So several scorers share the work, a restart goes on, and the references stay those that were drawn first. {table} is
the Feast project and a digest of the table's settings: another generation or other columns compute all anew.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import Counter

from features.config import ProfileConfig
from features.repo.push_log import PushedValues
from features.spec import Entity, EntityId, FeatureSpec, IdType, usable_id
from runtime.compute import batched
from runtime.errors import InvalidInputError
from runtime.redis import connect, reaching
from stream.events import TeacherRequest
from teacher_cache.profiles.profiles import Profiler, draw_references

_CHUNK_IDS = 10_000  # of one command
_MOST_AGE_SECONDS = 86_400  # batch tables change by the day, and profiles follow from them


class ProfileQueue:
    """The ids of one table by the time at which they were scored; one that never was comes first.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(self, redis_url: str, generation: str, spec: FeatureSpec, config: ProfileConfig) -> None:
        self._url, self._client = redis_url, connect(redis_url)
        self._id_type: IdType = spec.user_id_type if config.entity == "user" else spec.item_id_type
        digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]
        prefix = f"graft:profiles:{generation}:{spec.feast_project}-{digest}:"
        self._references, self._scored, self._shown = (f"{prefix}{part}" for part in ("references", "scored", "shown"))

    def references(self) -> list[EntityId]:
        """The references that were drawn; none before."""
        with reaching(self._url):
            found = self._client.get(self._references)
        drawn: list[EntityId] = json.loads(found) if isinstance(found, bytes) else []
        return drawn

    def begin(self, references: Sequence[EntityId]) -> None:
        """Note the references, unless another scorer has drawn them by now."""
        with reaching(self._url):
            self._client.set(self._references, json.dumps(list(references)), nx=True)

    def add(self, ids: Iterable[EntityId]) -> None:
        """Have the ids scored that never were; those that cannot be join keys are left out."""
        usable = (one for one in ids if usable_id(one, self._id_type) is not None)
        members = (json.dumps(one) for one in usable)
        for some in batched(members, _CHUNK_IDS):
            with reaching(self._url):
                self._client.zadd(self._scored, dict.fromkeys(some, 0), nx=True)

    def due(self, now_seconds: float, count: int) -> list[EntityId]:
        """At most `count` ids that were never scored, or more than a day ago; oldest first."""
        oldest = now_seconds - _MOST_AGE_SECONDS
        with reaching(self._url):
            found = self._client.zrangebyscore(self._scored, "-inf", oldest, start=0, num=count)
        return [json.loads(member) for member in found]  # type: ignore[union-attr] # no awaitable

    def done(self, ids: Sequence[EntityId], now_seconds: float) -> None:
        """The ids were scored now."""
        with reaching(self._url):
            self._client.zadd(self._scored, dict.fromkeys(map(json.dumps, ids), now_seconds))

    def see(self, event_time_ms: int) -> None:
        """A request of that event time came; requests come nearly in order."""
        with reaching(self._url):
            self._client.set(self._shown, event_time_ms)

    def shown_ms(self) -> int:
        """The event time of the newest request; 0 before the first."""
        with reaching(self._url):
            found = self._client.get(self._shown)
        return int(found) if isinstance(found, bytes) else 0


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
