"""The teacher's inputs on a log: how far its logits move when an input takes its default, and how often it does.

Shapes: B rows, T teacher tasks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from lab.study.grid import TeacherChange
from lab.study.learners.teachers import changed_config, requests_of
from lab.study.log.study_log import StudyLog
from teacher_cache.config import DefaultInput, TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher


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
