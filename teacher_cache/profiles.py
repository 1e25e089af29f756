"""Profiles: what the teacher says of a user on average over reference items, and of an item over reference users.

A profile follows from the batch tables and the teacher alone. Context and pushed features are missing in the rows that
are scored, so that the domain map gives their defaults: no label and no time of day moves a profile.

`ProfileScorer` keeps them fresh: those of ids that are new in the batch tables, that were asked for, or that are old.
Which are to be computed, and over which references, is noted in Redis for each `[[features.profiles]]` table:

    key    graft:profiles:{project}:{generation}:{table}:references   JSON: the ids drawn
    key    graft:profiles:{project}:{generation}:{table}:scored       sorted set: id as JSON -> seconds since 1970, or 0
    key    graft:profiles:{project}:{generation}:{table}:shown        event time of the newest teacher request, ms

So several scorers share the work, a restart goes on, and the references stay those that were drawn first. {table} is
the Feast project and a digest of the table's settings: another generation or other columns compute all anew.

Shapes: N ids, R references, W numbers of a vector.
"""

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from features.config import ProfileConfig
from features.online.reader import FeatureReader
from features.spec import Entity, EntityId, Feature, FeatureSpec, IdType, usable_id
from runtime.compute import batched
from runtime.errors import ConfigurationError, InvalidInputError
from runtime.redis import connect, reaching
from stream.events import TeacherRequest
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import BATCH_ROWS
from teacher_cache.teacher import Teacher, TeacherOutputError, counted_as_busy

if TYPE_CHECKING:
    from features.push.pusher import LoggedPusher
    from features.repo.batch_tables import BatchTables

PASS_IDS = 256
"""Of each table in one pass, so that the logits of requests do not wait long for profiles."""

_LOG = logging.getLogger(__name__)
_PROFILES = Counter("graft_teacher_profiles", "Profiles that were computed and pushed.", ["push_source"])
_CHUNK_IDS = 10_000  # of one command
_MOST_AGE_SECONDS = 86_400  # batch tables change by the day, and profiles follow from them
_UNSCORED = Counter("graft_teacher_unscored_profile_rows", "Rows left out of a profile: the teacher cannot score them.")


class Profiles(NamedTuple):
    """The profiles of N ids for one push source: the values of `features.push` and of the push log."""

    config: ProfileConfig
    of: Mapping[EntityId, Mapping[str, float | Sequence[float]]]
    """By id, each column's value."""

    def has(self, entity: Entity, entity_id: EntityId) -> bool:
        """Whether the id has a profile."""
        return entity == self.config.entity and entity_id in self.of

    def rows(
        self,
        push_source: str,  # noqa: ARG002 - a `PushedValues` signature; there is one
        entity: Entity,  # noqa: ARG002
        ids: Iterable[EntityId],
    ) -> dict[str, list[float | Sequence[float]]]:
        """One list per column, with a value for each of `ids`, which have profiles."""
        profiles = [self.of[entity_id] for entity_id in ids]
        return {column: [profile[column] for profile in profiles] for column in self.config.columns}


def faults_of_profiles(features: Iterable[Feature], outputs: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Each feature that cannot hold what the teacher gives. `outputs`: the shape of a row of each task and vector."""
    faults = []
    for feature in features:
        shape = outputs.get(feature.profile_of)
        if shape is None:  # no profile, or of an output that does not exist, which is a fault of its own
            continue
        where = f"graft.toml: features.{feature.role}: {feature.name!r} is a profile of {feature.profile_of!r}"
        if (feature.dtype == "float_list") != bool(shape):
            what = f"a list of {shape[0]} numbers" if shape else "a number"
            faults.append(f"{where}, which is {what}; its field in the repository has another type")
        elif shape and feature.role == "embedding" and feature.width != shape[0]:
            faults.append(f"{where}, which has {shape[0]} numbers; the field or its default has {feature.width}")
    return faults


def draw_references(ids: Sequence[EntityId], count: int) -> list[EntityId]:
    """`count` of the ids, or all where there are fewer: those with the lowest hashes, the same wherever it is asked."""
    return sorted(ids, key=lambda one: mmh3.hash64(str(one).encode("utf-8", "surrogatepass"), signed=False))[:count]


class Profiler:
    """Scores ids against references. `pushed_views`: the views whose features are missing in the rows scored.

    ConfigurationError when a feature cannot hold what the teacher gives.
    """

    def __init__(
        self,
        teacher: Teacher,
        domain_map: DomainMap,
        spec: FeatureSpec,
        reader: FeatureReader,
        pushed_views: Collection[str],
    ) -> None:
        if faults := faults_of_profiles(spec.features, teacher.outputs):
            raise ConfigurationError(faults)
        self._teacher = teacher
        self._domain_map = domain_map
        self._reader = reader
        self._missing = [f.name for f in spec.features if f.source == "context" or f.view in pushed_views]

    def profiles(self, config: ProfileConfig, ids: Sequence[EntityId], references: Sequence[EntityId]) -> Profiles:
        """The profiles of N ids, with the features of now; one that the teacher cannot score with any is left out.

        ServiceUnavailableError when the feature store does not answer.
        """
        of: dict[EntityId, Mapping[str, float | Sequence[float]]] = {}
        size = max(1, BATCH_ROWS // len(references))
        for at in range(0, len(ids), size):
            some = ids[at : at + size]
            output = self._output(config.entity, some, references)
            for place, entity_id in enumerate(some):
                rows = slice(place * len(references), (place + 1) * len(references))
                means = {column: _mean(output[name][rows]) for column, name in config.columns.items()}
                if found := {column: mean for column, mean in means.items() if mean is not None}:
                    of[entity_id] = found  # what the teacher scores, it scores in all tasks
        return Profiles(config, of)

    def _output(
        self, entity: Entity, ids: Sequence[EntityId], references: Sequence[EntityId]
    ) -> dict[str, NDArray[np.float32]]:
        """What the teacher says of each id with each reference, by name: [N * R] or [N * R, W]; NaN: nothing."""
        of_ids = [entity_id for entity_id in ids for _ in references]
        of_references = list(references) * len(ids)
        users, items = (of_ids, of_references) if entity == "user" else (of_references, of_ids)
        columns = self._reader.read(users, items, [{}] * len(users))
        missing: dict[str, list[Any]] = dict.fromkeys(self._missing, [None] * len(users))
        return outputs_of_rows(self._teacher, self._domain_map.map_rows({**columns, **missing}).inputs)


def outputs_of_rows(teacher: Teacher, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """What the teacher says of each row, by name of task and vector; NaN of those that it cannot score."""
    row_B = np.arange(len(next(iter(inputs.values()))))
    output = {name: np.full((len(row_B), *row), np.nan, np.float32) for name, row in teacher.outputs.items()}
    while len(row_B):
        try:
            with counted_as_busy():
                found = teacher.describe({name: tensor[row_B] for name, tensor in inputs.items()})
        except TeacherOutputError as error:
            _UNSCORED.inc(len(error.rows))
            row_B = np.delete(row_B, error.rows)
            continue
        for name, value_B in found.items():
            output[name][row_B] = value_B
        break
    return output


def _mean(value_R: NDArray[np.float32]) -> float | list[float] | None:
    """The mean over the rows that are scored; None where there is none."""
    scored_R = value_R[np.isfinite(value_R.reshape(len(value_R), -1)).all(axis=1)]
    mean: float | list[float] = scored_R.astype(np.float64).mean(axis=0).tolist() if len(scored_R) else []
    return mean if len(scored_R) else None


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
        self, tables: Sequence[ProfileTable], profiler: Profiler, pusher: "LoggedPusher", batch_tables: "BatchTables"
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
