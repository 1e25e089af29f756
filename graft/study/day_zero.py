"""Before the first event: what `graft student bootstrap` would distil, without Redis."""

from typing import NamedTuple

from features.redis_layout import EntityId
from features.spec import FeatureSpec
from graft.project import Project
from graft.study.memory_store import MemoryStore, Sources
from graft.study.teachers import StudyTeacher
from student.bootstrap import ScoredPairs, sample_pairs, score_pairs


class DayZero(NamedTuple):
    """The project's batch tables, and the ids that they know."""

    sources: Sources
    users: list[EntityId]
    items: list[EntityId]

    def pairs(self, project: Project, teacher: StudyTeacher, spec: FeatureSpec) -> ScoredPairs:
        """As the command samples and scores them; all at once, for a changed teacher to change them together."""
        reader = MemoryStore(spec, self.sources, project.features.aggregates)
        sampled = sample_pairs(self.users, self.items, project.bootstrap.pairs, project.student.seed)
        return score_pairs(sampled, reader, teacher, spec, len(sampled))
