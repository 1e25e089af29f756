"""The online store in memory: the values that Feast keeps in Redis, of the same tables and aggregates; and profiles."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from features.aggregates import Aggregates
from features.config import AggregateConfig, ProfileConfig
from features.contract import ContextValue, context_name
from features.online.reader import Columns, context_value
from features.repo.batch_tables import BatchTables
from features.spec import Entity, EntityId, Feature, FeatureSpec, Value, usable_id
from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from runtime.errors import InvalidInputError
from teacher_cache.batch_scorer import EVERY_SECONDS
from teacher_cache.config import LookupInput, TeacherConfig, VocabularyInput
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import Profiler, draw_references


def digest_of(parts: Iterable[str | Path]) -> str:
    """16 hexadecimal digits of texts, and of files given by path; InvalidInputError for one that cannot be read."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else _read(part)
        digest.update(len(content).to_bytes(8))  # where a part ends is a part of it
        digest.update(content)
    return digest.hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from None


_FLOATS = {"FLOAT": np.float32, "FLOAT_LIST": np.float32, "DOUBLE": np.float64, "DOUBLE_LIST": np.float64}
_Row = dict[str, Value]
_1970 = datetime(1970, 1, 1, tzinfo=UTC)

END_MS = 2**63
"""The end of all time: later than every row of a table."""
NO_REDIS = "redis://127.0.0.1:6379/0"
"""Of Feast's configuration, which must name one; nothing connects to it."""


class Sources(NamedTuple):
    """`features.repo.store.ViewSources` for processes without Feast: path, join key and time column of each table."""

    tables: Mapping[str, tuple[Path, str, str]]
    pushed: Mapping[str, str]

    @property
    def key(self) -> str:
        """A digest of their content."""
        views = {view: (join_key, time) for view, (_, join_key, time) in sorted(self.tables.items())}
        told = json.dumps([views, dict(sorted(self.pushed.items()))])
        return digest_of([told, *(self.tables[view][0] for view in views)])


class _Rows(NamedTuple):
    """The rows of one entity by the time from which each holds."""

    begin_ms: list[int]
    values: list[_Row]

    def at(self, time_ms: int) -> _Row:
        """The row that holds at a time; an empty one before the first."""
        number = bisect_right(self.begin_ms, time_ms)
        return self.values[number - 1] if number else {}


class MemoryStore:
    """Reads as `features.online.reader.OnlineReader` does; a push is visible to the next read, without any delay.

    `now_ms`: the event time that `read` takes for now; the end of all tables by default.
    """

    def __init__(
        self, spec: FeatureSpec, sources: Sources, aggregates: Sequence[AggregateConfig], now_ms: int = END_MS
    ) -> None:
        self._spec = spec
        self.now_ms = now_ms
        self._configs = aggregates
        self._view_of = sources.pushed
        self._stored: dict[str, dict[EntityId, _Rows]] = {f.view: {} for f in spec.features}
        self._features: dict[str, list[Feature]] = {view: [] for view in self._stored}
        for feature in spec.features:
            self._features[feature.view].append(feature)
        for view, table in sources.tables.items():
            if view in self._stored:
                path, join_key, timestamp_field = table
                for row in pq.read_table(path).sort_by(timestamp_field).to_pylist():
                    rows = self._stored[view].setdefault(row[join_key], _Rows([], []))
                    rows.begin_ms.append(_begin_ms(row[timestamp_field]))
                    rows.values.append(self._as_stored(view, row))

    def read(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
    ) -> Columns:
        """Columns of B rows as they are now; None where a value is missing."""
        return self.read_at(user_ids, item_ids, contexts, [self.now_ms] * len(user_ids))

    def read_at(
        self,
        user_ids: Sequence[EntityId],
        item_ids: Sequence[EntityId],
        contexts: Sequence[Mapping[str, ContextValue]],
        event_times_ms: Sequence[int],
    ) -> Columns:
        """Columns of B rows, each as it was at its own time; None where a value is missing, or begins later.

        Of a table it is the last row that had begun. Pushed rows are those of now, whose pushes came in their order.
        """
        ids = {
            "user": [usable_id(user_id, self._spec.user_id_type) for user_id in user_ids],
            "item": [usable_id(item_id, self._spec.item_id_type) for item_id in item_ids],
        }
        rows: dict[str, list[_Row]] = {}
        columns: dict[str, list[Value]] = {}
        for feature in self._spec.features:
            if feature.source == "context":
                name = context_name(feature)
                columns[feature.name] = [context_value(feature, context.get(name)) for context in contexts]
            elif feature.source in ("user_id", "item_id"):
                columns[feature.name] = [*ids[feature.source.removesuffix("_id")]]
            else:
                if feature.view not in rows:
                    rows[feature.view] = self._rows(feature.view, ids[feature.source], event_times_ms)
                columns[feature.name] = [row.get(feature.feature) for row in rows[feature.view]]
        return columns

    def push(
        self,
        aggregates: Aggregates,
        changed: Mapping[Entity, Sequence[EntityId]],
        shown_ms: int,  # noqa: ARG002 - a pusher's signature
        positions: Mapping[int, int],  # noqa: ARG002
    ) -> int:
        """Store the absolute values of the changed entities, and nothing of those without a state; how many rows."""
        pushed = 0
        for config in self._configs:
            view, ids = self._view_of[config.push_source], changed.get(config.entity, ())
            columns = aggregates.rows(config.push_source, config.entity, ids)
            for i, entity_id in enumerate(ids):
                row = self._as_stored(view, {name: values[i] for name, values in columns.items()})
                is_there = aggregates.has(config.entity, entity_id)
                self._stored[view][entity_id] = _Rows([-END_MS], [row if is_there else {}])
            pushed += len(ids)
        return pushed

    def _as_stored(self, view: str, row: Mapping[str, Any]) -> _Row:
        return {f.feature: as_stored(f, row[f.feature]) for f in self._features[view]}

    def _rows(self, view: str, ids: Sequence[EntityId | None], event_times_ms: Sequence[int]) -> list[_Row]:
        """What a view has of each entity at its time; an empty row where it has nothing."""
        stored = self._stored[view]
        found = {
            (one, time_ms): stored[one].at(time_ms) if one is not None and one in stored else {}
            for one, time_ms in set(zip(ids, event_times_ms, strict=True))
        }
        return [found[key] for key in zip(ids, event_times_ms, strict=True)]


def _begin_ms(time: datetime) -> int:
    """The first whole millisecond at which a row of a table holds; its time is UTC where it names no zone."""
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _1970
    return -(-since // timedelta(milliseconds=1))


def as_stored(feature: Feature, value: Any) -> Value:
    """The value as it comes back from Feast's message: a float of 32 bits where the view says FLOAT."""
    if value is None or feature.dtype == "str":
        return None if value is None else str(value)
    if feature.dtype == "int":
        return int(value)
    number = np.asarray(value, _FLOATS[feature.value_type])
    stored: float | list[float] = number.tolist()
    return stored if np.isfinite(number).all() else None


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


def teacher_files(config: TeacherConfig, folder: Path) -> list[Path]:
    """The files of a teacher: its network or its dump, and the tables of its inputs. A server has none."""
    own = [one for one in (config.onnx, config.dump and config.dump.path) if one]
    tables = [i.file for i in config.inputs.values() if isinstance(i, LookupInput | VocabularyInput) and i.file]
    found = [folder / file for file in (*own, *tables)]
    return [file for one in found for file in (sorted(one.glob("*.parquet")) if one.is_dir() else [one])]
