"""The teacher of a study: the pair's own, or a worse one on purpose; its profiles, its inputs, its bootstrap's rows.

Shapes: B rows, N examples or ids, P rows of a bootstrap, T teacher tasks, X numbers of all profiles of an entity.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.online.reader import Columns
from features.spec import Entity, EntityId, Feature, FeatureBatch, FeatureSpec, Value
from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from lab.study.grid import TeacherChange
from lab.study.log.memory_store import MemoryStore, ProfiledStore, Sources, open_store
from lab.study.log.study_log import StudyLog
from runtime.errors import ConfigurationError
from runtime.folder import replacing
from stream.events import Impression, TeacherRequest
from student.learn.bootstrap import BootstrapRows, sample_rows, score_requests
from teacher_cache.backfill.backfill import requests_of_columns
from teacher_cache.config import DefaultInput, TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer, ScoredRows
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher

_CHUNK = 4_096
_SEED = 20_260_101  # of the permutation: the same for every seed of the learner


def kept_logits(path: Path, change: TeacherChange, project: Project, log: StudyLog) -> NDArray[np.float32]:
    """The changed teacher's logits of a log [N, T], NaN where it gives none; kept in the file `path` from then on.

    A project without a teacher has none: T is 0.

    Every impression has its own logits; the stream's cache has those of the last impression of a user and an item.
    Examples from before `teacher.trained_until` have none, unless the project uses them.
    """
    if project.teacher is None:
        return np.empty((len(log.records), 0), np.float32)
    if not path.exists():
        scored = StudyTeacher(change, project, log.spec).score_all(requests_of(log))
        place = {example.impression_id: n for n, example in enumerate(log.examples)}
        logit_NT = np.full((len(log.records), len(project.needed_teacher.tasks)), np.nan, np.float32)
        logit_NT[[place[request.impression_id] for request in scored.requests]] = scored.logit_BT
        with replacing(path) as file:
            np.savez_compressed(file, logit_NT=logit_NT)
    with np.load(path, allow_pickle=False) as kept:
        loaded_NT: NDArray[np.float32] = kept["logit_NT"]
    loaded_NT[np.array(log.event_times_ms) < project.needed_teacher.logits_from_ms] = np.nan
    return loaded_NT


class StudyTeacher(RequestScorer):
    """The changed teacher behind the pair's domain map; scores as the batch scorer does."""

    def __init__(self, change: TeacherChange, project: Project, spec: FeatureSpec) -> None:
        self._change = change
        config = changed_config(change, project.needed_teacher)
        teacher = load_teacher(config, project.folder, Process(load_settings()).teacher_access)
        domain_map = DomainMap(config, project.folder, teacher, spec)
        super().__init__(teacher, domain_map, spec, warns=False)
        self._unchanged = RequestScorer(teacher, domain_map, spec, warns=False)
        self.tasks = len(config.tasks)
        self.spec = spec

    def score(self, requests: Sequence[TeacherRequest]) -> ScoredRows | None:
        """The logits of one batch, which draws its own permutation: score together what belongs together."""
        scored = self._unchanged.score(requests)
        return scored and scored._replace(logit_BT=changed(self._change, scored.logit_BT))

    def score_all(self, requests: Sequence[TeacherRequest]) -> ScoredRows:
        """The logits of all requests that the teacher can score; a permutation is drawn over all of them."""
        batches = [self._unchanged.score(requests[at : at + _CHUNK]) for at in range(0, len(requests), _CHUNK)]
        rows = [request for scored in batches if scored for request in scored.requests]
        logits = [np.empty((0, self.tasks), np.float32), *(scored.logit_BT for scored in batches if scored)]
        logit_NT = np.concatenate(logits)
        return ScoredRows(rows, changed(self._change, logit_NT) if rows else logit_NT, 0.0)


def requests_of(log: StudyLog) -> list[TeacherRequest]:
    """What the stream asked the teacher for each example."""
    return [
        TeacherRequest.model_construct(**{name: getattr(example, name) for name in TeacherRequest.model_fields})
        for example in log.examples
    ]


def changed_config(change: TeacherChange, config: TeacherConfig) -> TeacherConfig:
    """The teacher's file and its domain map; ConfigurationError for an input that it does not have."""
    unknown = [name for name in change.defaulted if name not in config.inputs]
    if unknown:
        raise ConfigurationError(
            [f"teacher.defaulted: no input {name!r}; it has {', '.join(config.inputs)}" for name in unknown]
        )
    inputs = {name: DefaultInput(default=config.inputs[name].default) for name in change.defaulted}
    return config.model_copy(update={"inputs": {**config.inputs, **inputs}})


def changed(change: TeacherChange, logit_NT: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits after the permutation, if there is one; pure."""
    return np.random.default_rng(_SEED).permutation(logit_NT) if change.permuted else logit_NT


class ChangedProfiles:
    """What a changed teacher says of these users and items on average; a permutation is drawn over all ids."""

    def __init__(
        self,
        change: TeacherChange,
        project: Project,
        spec: FeatureSpec,
        sources: Sources,
        ids: Mapping[Entity, Sequence[EntityId]],
    ) -> None:
        teacher = changed_config(change, project.needed_teacher)
        store = open_store(project.model_copy(update={"teacher": teacher}), spec, sources)
        self._value: dict[str, dict[EntityId, Value]] = {}
        self._source: dict[str, Entity] = {}
        for entity in ids:
            features = [f for f in spec.features if f.profile_of and f.source == entity]
            distinct = list(dict.fromkeys(ids[entity]))
            if features and distinct:
                self._change(change, store, entity, features, distinct)

    def applied(self, columns: Columns, user_ids: Sequence[EntityId], item_ids: Sequence[EntityId]) -> Columns:
        """Columns of B rows with these profiles; what was not known then stays missing."""
        ids: dict[Entity, Sequence[EntityId]] = {"user": user_ids, "item": item_ids}
        replaced: Columns = {}
        for name, value in self._value.items():
            rows = zip(columns[name], ids[self._source[name]], strict=True)
            replaced[name] = [None if known is None else value.get(one) for known, one in rows]
        return {**columns, **replaced}

    def of_log(self, log: StudyLog) -> StudyLog:
        """The log with these profiles."""
        columns = log.spec.columns_of([example.features for example in log.examples])
        users, items = [e.user_id for e in log.examples], [e.item_id for e in log.examples]
        rows = log.spec.rows_of(self.applied(columns, users, items))
        records = [
            record._replace(example=record.example.model_copy(update={"features": row}))
            for record, row in zip(log.records, rows, strict=True)
        ]
        return log._replace(records=records)

    def _change(
        self,
        change: TeacherChange,
        store: MemoryStore | ProfiledStore,
        entity: Entity,
        features: Sequence[Feature],
        ids: Sequence[EntityId],
    ) -> None:
        users, items = (ids, [""] * len(ids)) if entity == "user" else ([""] * len(ids), ids)
        columns = store.read(users, items, [{}] * len(ids))
        known = [n for n in range(len(ids)) if columns[features[0].name][n] is not None]
        parts_NX = [np.array([columns[f.name][n] for n in known], np.float32).reshape(len(known), -1) for f in features]
        changed_NX = changed(change, np.concatenate(parts_NX, axis=1))
        at = 0
        for feature, part_NX in zip(features, parts_NX, strict=True):
            part = changed_NX[:, at : at + part_NX.shape[1]]
            at += part_NX.shape[1]
            values: list[Value] = part.tolist() if feature.dtype == "float_list" else part[:, 0].tolist()
            self._value[feature.name] = {ids[n]: value for n, value in zip(known, values, strict=True)}
            self._source[feature.name] = entity


def ids_of(log: StudyLog, users: Sequence[EntityId], items: Sequence[EntityId]) -> dict[Entity, list[EntityId]]:
    """These users and items, and those of the log."""
    examples = log.examples
    return {"user": [*users, *(e.user_id for e in examples)], "item": [*items, *(e.item_id for e in examples)]}


class Joined(NamedTuple):
    """The rows of a bootstrap, and their raw features by name."""

    rows: Sequence[Impression]
    columns: Columns


class DayZeroColumns:
    """Joins the rows of bootstraps with their features: the store is opened once, a seed's rows are read once.

    All teachers of a seed score the same rows, and to read them takes longer than to score them.
    """

    def __init__(self) -> None:
        self._store: MemoryStore | ProfiledStore | None = None
        self._opened: object = None
        self._read: object = None
        self._joined = Joined([], {})

    def of(self, day_zero: "DayZero", project: Project, spec: FeatureSpec) -> Joined:
        """The rows of a project's bootstrap; those of the last call where they are the same."""
        opened = spec.spec_id, project.features, project.teacher, day_zero.begin_ms
        if self._store is None or opened != self._opened:
            self._store = open_store(project, spec, day_zero.sources, day_zero.begin_ms)
            self._opened, self._read = opened, None
        read = day_zero.users, day_zero.items, project.bootstrap.rows, project.student.seed
        if read != self._read:
            rows = sample_rows(*read)
            users, items = [row.user_id for row in rows], [row.item_id for row in rows]
            self._joined = Joined(rows, self._store.read(users, items, [row.context for row in rows]))
            self._read = read
        return self._joined


class DayZero(NamedTuple):
    """The project's batch tables, and the ids that they know when the first event comes, at `begin_ms`."""

    sources: Sources
    users: list[EntityId]
    items: list[EntityId]
    begin_ms: int

    def rows(
        self,
        project: Project,
        teacher: StudyTeacher,
        columns: DayZeroColumns,
        profiles: ChangedProfiles | None = None,
    ) -> BootstrapRows:
        """The rows as the command scores them, but in one batch: a changed teacher changes a batch as a whole.

        `profiles`: of a changed teacher, in place of the project's own.
        """
        rows, found = columns.of(self, project, teacher.spec)
        if profiles is not None:
            found = profiles.applied(found, [row.user_id for row in rows], [row.item_id for row in rows])
        return score_requests(requests_of_columns(rows, found, teacher.spec), teacher, teacher.spec, len(rows))

    def kept_rows(
        self,
        path: Path,
        project: Project,
        teacher: StudyTeacher,
        columns: DayZeroColumns,
        profiles: ChangedProfiles | None,
    ) -> BootstrapRows:
        """The same rows: from the file `path` if another cell has written it."""
        if not path.exists():
            (dense_PD, categorical_PC), logit_PT = self.rows(project, teacher, columns, profiles)
            with replacing(path) as file:
                np.savez(file, dense_PD=dense_PD, categorical_PC=categorical_PC, logit_PT=logit_PT)
        with np.load(path, allow_pickle=False) as kept:
            return BootstrapRows(FeatureBatch(kept["dense_PD"], kept["categorical_PC"]), kept["logit_PT"])


class InputUse(NamedTuple):
    """One input of the teacher. `fell_back`: in which share of rows it had its default; 1 where no feature feeds it."""

    name: str
    fell_back: float


def inputs_in_use(project: Project, log: StudyLog) -> list[InputUse]:
    """How often each input has its default on a log; none without a teacher or of a dump, whose inputs are keys."""
    config = project.teacher
    if config is None or config.dump is not None:
        return []
    domain_map = DomainMap(config, project.folder, _teacher(project), log.spec)
    mapped = domain_map.map_rows(log.spec.columns_of([example.features for example in log.examples]))
    shares = {name: float(np.mean(fell_back_B)) for name, fell_back_B in mapped.fell_back.items()}
    return [InputUse(name, shares.get(name, 1.0)) for name in config.inputs]


def moving_inputs(project: Project, log: StudyLog) -> list[str]:
    """The inputs whose default changes the logits of a log, the one that moves them most first.

    By the mean distance over rows and distilled tasks, in deviations of the logits. Of a dump, and without a teacher,
    there are none.
    """
    config = project.teacher
    if config is None or config.dump is not None:
        return []
    scorer = _Scorer(project, log)
    fed = [name for name, mapped in config.inputs.items() if not isinstance(mapped, DefaultInput)]
    moved = {name: scorer.moved(name) for name in fed}
    return sorted((name for name in fed if moved[name] > 0), key=lambda name: -moved[name])


class _Scorer:
    """The teacher on the same rows, with one input after the other at its default."""

    def __init__(self, project: Project, log: StudyLog) -> None:
        self._project, self._spec, self._requests = project, log.spec, requests_of(log)
        self._teacher = _teacher(project)
        tasks, distilled = project.needed_teacher.tasks, {row.teacher_task for row in project.distillation}
        self._distilled = [n for n, task in enumerate(tasks) if not distilled or task.name in distilled]
        self._logits = self._scored(project.needed_teacher)

    def moved(self, name: str) -> float:
        """How far the logits move; 0 where the teacher scores no row in both ways."""
        other = self._scored(changed_config(TeacherChange(defaulted=[name]), self._project.needed_teacher))
        both = [row for row in self._logits if row in other]
        if not both:
            return 0.0
        ours_BT, theirs_BT = (np.stack([found[row] for row in both]) for found in (self._logits, other))
        spread_T = np.maximum(ours_BT.std(axis=0), 1e-6)
        return float(np.mean((np.abs(ours_BT - theirs_BT).mean(axis=0) / spread_T)[self._distilled]))

    def _scored(self, config: TeacherConfig) -> dict[str, NDArray[np.float32]]:
        """By impression its logits [T]; those that the teacher cannot score are absent."""
        domain_map = DomainMap(config, self._project.folder, self._teacher, self._spec)
        scored = RequestScorer(self._teacher, domain_map, self._spec, warns=False).score(self._requests)
        if scored is None:
            return {}
        return {row.impression_id: logit_T for row, logit_T in zip(scored.requests, scored.logit_BT, strict=True)}


def _teacher(project: Project) -> Teacher:
    return load_teacher(project.needed_teacher, project.folder, Process(load_settings()).teacher_access)
