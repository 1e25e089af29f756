"""The profiles of a teacher that a study makes worse on purpose, in place of those that the log has.

Shapes: N ids, X columns: the numbers of all profiles of an entity, side by side.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from features.ids import Entity, EntityId
from features.lookup import Columns
from features.spec import Feature, FeatureSpec, Value
from graft.project import Project
from lab.study.grid import TeacherChange
from lab.study.memory_store import MemoryStore, Sources
from lab.study.profiled_store import ProfiledStore, open_store
from lab.study.study_log import StudyLog
from lab.study.teachers import changed, changed_config


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
