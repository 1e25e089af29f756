"""The rows that `graft student bootstrap` would distil before the first event, read without Redis."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.redis_layout import EntityId
from features.spec import FeatureBatch, FeatureSpec
from graft.project import Project
from lab.study.changed_profiles import ChangedProfiles, ChangedStore
from lab.study.memory_store import Sources
from lab.study.profiled_store import open_store
from lab.study.teachers import StudyTeacher
from runtime.folder import replacing
from student.learn.bootstrap import DayZeroRows, sample_rows, score_rows


class DayZero(NamedTuple):
    """The project's batch tables, and the ids that they know when the first event comes, at `begin_ms`."""

    sources: Sources
    users: list[EntityId]
    items: list[EntityId]
    begin_ms: int

    def rows(
        self, project: Project, teacher: StudyTeacher, spec: FeatureSpec, profiles: ChangedProfiles | None = None
    ) -> DayZeroRows:
        """The rows as the command scores them, but in one batch: a changed teacher changes a batch as a whole.

        `profiles`: of a changed teacher, in place of the project's own.
        """
        store = open_store(project, spec, self.sources, self.begin_ms)
        reader = store if profiles is None else ChangedStore(store, profiles)
        sampled = sample_rows(self.users, self.items, project.bootstrap.rows, project.student.seed)
        return score_rows(sampled, reader, teacher, spec, len(sampled))

    def kept_rows(
        self,
        path: Path,
        project: Project,
        teacher: StudyTeacher,
        spec: FeatureSpec,
        profiles: ChangedProfiles | None = None,
    ) -> DayZeroRows:
        """The same rows, which take half as long as a cell: from the file `path` if another cell has written it."""
        if not path.exists():
            (dense_PD, categorical_PC), logit_PT = self.rows(project, teacher, spec, profiles)
            with replacing(path) as file:
                np.savez(file, dense_PD=dense_PD, categorical_PC=categorical_PC, logit_PT=logit_PT)
        with np.load(path, allow_pickle=False) as kept:
            return DayZeroRows(FeatureBatch(kept["dense_PD"], kept["categorical_PC"]), kept["logit_PT"])
