"""Which profiles are to be computed, and over which references: noted in Redis for each `[[features.profiles]]` table.

    key    graft:profiles:{project}:{generation}:{table}:references   JSON: the ids drawn
    key    graft:profiles:{project}:{generation}:{table}:scored       sorted set: id as JSON -> seconds since 1970, or 0
    key    graft:profiles:{project}:{generation}:{table}:shown        event time of the newest teacher request, ms

So several scorers share the work, a restart goes on, and the references stay those that were drawn first. {table} is
the Feast project and a digest of the table's settings: another generation or other columns compute all anew.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from features.config import ProfileConfig
from features.spec import EntityId, FeatureSpec, IdType, usable_id
from runtime.compute import batched
from runtime.redis import connect, reaching

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
