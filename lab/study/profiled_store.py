"""The online store in memory with profiles, which the batch scorer computes in the stream.

A profile is computed when its id first appears, from the features of that moment. It is known at once where a batch
table has the id, as 'graft teacher backfill --profiles' has scored it before the first event; else from the batch
scorer's next pass on, a second later.
"""

from collections.abc import Mapping, Sequence

from features.aggregates import Aggregates
from features.batch_tables import BatchTables
from features.config import ProfileConfig
from features.contract import ContextValue
from features.ids import Entity, EntityId
from features.lookup import Columns
from features.spec import Feature, FeatureSpec, Value
from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from lab.study.memory_store import END_MS, MemoryStore, Sources, as_stored
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles.profiles import Profiler, draw_references
from teacher_cache.scorer.batch_scorer import EVERY_SECONDS


def open_store(
    project: Project, spec: FeatureSpec, sources: Sources, now_ms: int = END_MS
) -> "MemoryStore | ProfiledStore":
    """The store of a project, with profiles where it has some. ConfigurationError when its teacher does not fit.

    `now_ms`: the event time that `read` takes for now.
    """
    store = MemoryStore(spec, sources, project.features.aggregates, now_ms)
    return ProfiledStore(store, project, spec, sources) if project.features.profiles else store


class ProfiledStore:
    """Reads and takes pushes as `MemoryStore` does."""

    def __init__(self, store: MemoryStore, project: Project, spec: FeatureSpec, sources: Sources) -> None:
        self._store, self._at = store, _At(store)
        config = project.needed_teacher
        teacher = load_teacher(config, project.folder, Process(load_settings()).teacher_access)
        domain_map = DomainMap(config, project.folder, teacher, spec)
        profiler = Profiler(teacher, domain_map, spec, self._at, sources.pushed.values())
        known = BatchTables(sources.tables.values(), spec).ids()
        delay_ms = round(1000 * EVERY_SECONDS)
        self._profiled = [_Profiled(config, spec, profiler, known, delay_ms) for config in project.features.profiles]

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Columns:
        """As `MemoryStore.read`."""
        return self.read_at(user_ids, item_ids, contexts, [self._store.now_ms] * len(user_ids))

    def read_at(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
        event_times_ms: Sequence[int],
    ) -> Columns:
        """As `MemoryStore.read_at`, and of profiles those that were known then."""
        columns = self._store.read_at(user_ids, item_ids, contexts, event_times_ms)
        ids: dict[Entity, Sequence[EntityId]] = {"user": user_ids, "item": item_ids}
        for profiled in self._profiled:
            self._at.time_ms = min(event_times_ms, default=END_MS)
            columns |= profiled.read_at(ids[profiled.entity], event_times_ms)
        return columns

    def push(
        self,
        aggregates: Aggregates,
        changed: Mapping[Entity, Sequence[EntityId]],
        shown_ms: int,
        positions: Mapping[int, int],
    ) -> int:
        """As `MemoryStore.push`."""
        return self._store.push(aggregates, changed, shown_ms, positions)


class _At:
    """The features of one moment, for the profiler."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.time_ms = END_MS

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Columns:
        return self._store.read_at(user_ids, item_ids, contexts, [self.time_ms] * len(user_ids))


class _Profiled:
    """The profiles of one table, and from when on each is known."""

    def __init__(
        self,
        config: ProfileConfig,
        spec: FeatureSpec,
        profiler: Profiler,
        known: Mapping[Entity, Sequence[EntityId]],
        delay_ms: int,
    ) -> None:
        self.entity = config.entity
        self._config, self._profiler, self._delay_ms = config, profiler, delay_ms
        self._features: list[Feature] = [f for f in spec.features if f.profile_of and f.source == config.entity]
        self._known = frozenset(known[config.entity])
        self._references = draw_references(known["item" if config.entity == "user" else "user"], config.references)
        self._begin_ms: dict[EntityId, int] = {}
        self._profiles: dict[EntityId, dict[str, Value]] = {}

    def read_at(self, ids: Sequence[EntityId], event_times_ms: Sequence[int]) -> Columns:
        """The profile columns of B rows; None before the profile of an id is known."""
        self._appear(ids, event_times_ms)
        rows = [
            self._profiles.get(one, {}) if self._begin_ms[one] <= time_ms else {}
            for one, time_ms in zip(ids, event_times_ms, strict=True)
        ]
        return {f.name: [row.get(f.name) for row in rows] for f in self._features}

    def _appear(self, ids: Sequence[EntityId], event_times_ms: Sequence[int]) -> None:
        new: dict[EntityId, int] = {}
        for one, time_ms in zip(ids, event_times_ms, strict=True):
            if one not in self._begin_ms:
                new.setdefault(one, -END_MS if one in self._known else min(time_ms + self._delay_ms, END_MS))
        if new:
            found = self._profiler.profiles(self._config, list(new), self._references).of
            for one, profile in found.items():
                self._profiles[one] = {f.name: as_stored(f, profile[f.feature]) for f in self._features}
            self._begin_ms |= new
