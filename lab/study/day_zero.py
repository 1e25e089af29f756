"""The rows that `graft student bootstrap` would distil before the first event, read without Redis."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.redis_layout import EntityId
from features.spec import FeatureBatch, FeatureSpec
from graft.project import Project
from lab.study.memory_store import MemoryStore, Sources
from lab.study.teachers import StudyTeacher
from runtime.folder import replacing
from student.learn.bootstrap import ScoredPairs, sample_pairs, score_pairs


class DayZero(NamedTuple):
    """The project's batch tables, and the ids that they know."""

    sources: Sources
    users: list[EntityId]
    items: list[EntityId]

    def pairs(self, project: Project, teacher: StudyTeacher, spec: FeatureSpec) -> ScoredPairs:
        """The rows as the command samples and scores them; in one batch, which a changed teacher changes as a whole."""
        reader = MemoryStore(spec, self.sources, project.features.aggregates)
        sampled = sample_pairs(self.users, self.items, project.bootstrap.pairs, project.student.seed)
        return score_pairs(sampled, reader, teacher, spec, len(sampled))

    def kept_pairs(self, path: Path, project: Project, teacher: StudyTeacher, spec: FeatureSpec) -> ScoredPairs:
        """As `pairs`, which takes as long as half a cell: from the file `path` where another cell has written it."""
        if not path.exists():
            (dense_PD, categorical_PC), logit_PT = self.pairs(project, teacher, spec)
            with replacing(path) as file:
                np.savez(file, dense_PD=dense_PD, categorical_PC=categorical_PC, logit_PT=logit_PT)
        with np.load(path, allow_pickle=False) as kept:
            return ScoredPairs(FeatureBatch(kept["dense_PD"], kept["categorical_PC"]), kept["logit_PT"])
