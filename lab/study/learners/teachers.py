"""The teacher of a study: the pair's own, or a worse one on purpose, and its profiles.

Shapes: B rows, N examples or ids, T teacher tasks, X numbers of all profiles of an entity.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.online.reader import Columns
from features.spec import Entity, EntityId, Feature, FeatureSpec, Value
from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from lab.study.grid import TeacherChange
from lab.study.log.memory_store import MemoryStore, ProfiledStore, Sources, open_store
from lab.study.log.study_log import StudyLog
from runtime.errors import ConfigurationError
from runtime.folder import replacing
from stream.events import TeacherRequest
from stream.log.logged_logits import LoggedLogit
from teacher_cache.cache.cache import usable_or_nan
from teacher_cache.cache.generation import generation_of
from teacher_cache.config import DefaultInput, TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer, ScoredRows
from teacher_cache.kinds.load import load_teacher

_CHUNK = 4_096
_SEED = 20_260_101  # of the permutation: the same for every seed of the learner


def kept_logits(path: Path, change: TeacherChange, project: Project, log: StudyLog) -> NDArray[np.float32]:
    """The changed teacher's logits of a log [N, T], NaN where it gives none; kept in the file `path` from then on.

    A project without a teacher has none: T is 0.

    Of an unchanged teacher they are those that the log has, where it says what was used; the others are scored. There
    every impression has its own logits; the stream's cache has those of the last impression of a user and an item.
    Examples from before `teacher.trained_until` have none, unless the project uses them.
    """
    if project.teacher is None:
        return np.empty((len(log.records), 0), np.float32)
    if not path.exists():
        told = told_of(change, project, log)
        requests = [request for request, one in zip(requests_of(log), told, strict=True) if one is None]
        tasks = len(project.needed_teacher.tasks)
        logits = [usable_or_nan(one and one.logits, tasks) for one in told]
        logit_NT = np.array(logits, np.float32).reshape(-1, tasks)
        if requests:
            scored = StudyTeacher(change, project, log.spec).score_all(requests)
            place = {example.impression_id: n for n, example in enumerate(log.examples)}
            logit_NT[[place[request.impression_id] for request in scored.requests]] = scored.logit_BT
        with replacing(path) as file:
            np.savez_compressed(file, logit_NT=logit_NT)
    with np.load(path, allow_pickle=False) as kept:
        loaded_NT: NDArray[np.float32] = kept["logit_NT"]
    loaded_NT[np.array(log.event_times_ms) < project.needed_teacher.logits_from_ms] = np.nan
    return loaded_NT


def told_of(change: TeacherChange, project: Project, log: StudyLog) -> Sequence[LoggedLogit | None]:
    """What the log says of each example about this teacher; None where it does not say."""
    if log.logged is None or change != TeacherChange():
        return [None] * len(log.records)
    generation = generation_of(project.name, project.needed_teacher, project.folder, log.spec).digest
    return log.logged.rows if generation == log.logged.generation else [None] * len(log.records)


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
        return log._replace(records=records, logged=None)

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
