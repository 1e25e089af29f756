"""The rows that `graft student bootstrap` would distil before the first event, read without Redis."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.online.reader import Columns
from features.spec import EntityId, FeatureBatch, FeatureSpec
from graft.project import Project
from lab.study.learners.teachers import ChangedProfiles, StudyTeacher
from lab.study.log.memory_store import MemoryStore, ProfiledStore, Sources, open_store
from runtime.folder import replacing
from stream.events import Impression
from student.learn.bootstrap import BootstrapRows, sample_rows, score_requests
from teacher_cache.backfill.backfill import requests_of_columns


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
