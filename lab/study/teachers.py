"""The teacher of a study: the pair's own, or a worse one on purpose. Shapes: B rows, N examples, T teacher tasks."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from graft.process import Process
from graft.project import Project
from graft.settings import load_settings
from lab.study.grid import TeacherChange
from lab.study.study_log import StudyLog
from runtime.errors import ConfigurationError
from runtime.folder import replacing
from stream.events import TeacherRequest
from stream.log.logged_logits import LoggedLogit
from teacher_cache.cache.generation import generation_of
from teacher_cache.cache.logged import decoded
from teacher_cache.cache.unshown import UnshownRows, UnshownSampler, together
from teacher_cache.config import DefaultInput, LookupInput, TeacherConfig, UnshownConfig, VocabularyInput
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer, ScoredRows
from teacher_cache.kinds.load import load_teacher

_CHUNK = 4_096
_SEED = 20_260_101  # of the permutation: the same for every seed of the learner
_NOTHING = LoggedLogit(None, [])


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
        logit_NT = np.array([decoded(one or _NOTHING, tasks)[0] for one in told], np.float32).reshape(-1, tasks)
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


class Unshown:
    """The unshown rows of every example of a log: those that it has, else made and scored as the batch scorer does it.

    Examples from before the event time `from_ms` have none.
    """

    def __init__(
        self,
        teacher: StudyTeacher,
        config: UnshownConfig,
        log: StudyLog,
        told: Sequence[LoggedLogit | None] | None = None,
        from_ms: int = 0,
    ) -> None:
        requests = requests_of(log)
        told = told or [None] * len(requests)
        self._tasks = teacher.tasks
        self._of = [decoded(one or _NOTHING, self._tasks)[1] for one in told]
        unknown = {request.impression_id for request, one in zip(requests, told, strict=True) if _is_unknown(one)}
        rows = [row for row in UnshownSampler(log.spec, config).sample(requests) if row.impression_id in unknown]
        scored = teacher.score_all(rows)
        count = Counter(row.impression_id for row in scored.requests)
        first = 0
        for n, request in enumerate(requests):
            if _is_unknown(told[n]):
                part = slice(first, first + count[request.impression_id])
                self._of[n] = UnshownRows([row.features for row in scored.requests[part]], scored.logit_BT[part])
                first = part.stop
            if request.event_time_ms < from_ms:
                self._of[n] = decoded(_NOTHING, self._tasks)[1]

    def of(self, first: int, last: int) -> UnshownRows:
        """Those of the examples from `first` to before `last`."""
        return together(self._of[first:last], self._tasks)


def _is_unknown(told: LoggedLogit | None) -> bool:
    """Whether the log does not say which unshown rows an example had."""
    return told is None or told.unshown is None


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


def teacher_files(config: TeacherConfig, folder: Path) -> list[Path]:
    """The files of a teacher: its network or its dump, and the tables of its inputs. A server has none."""
    own = [one for one in (config.onnx, config.dump and config.dump.path) if one]
    tables = [i.file for i in config.inputs.values() if isinstance(i, LookupInput | VocabularyInput) and i.file]
    found = [folder / file for file in (*own, *tables)]
    return [file for one in found for file in (sorted(one.glob("*.parquet")) if one.is_dir() else [one])]


def changed(change: TeacherChange, logit_NT: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits after the permutation, if there is one; pure."""
    return np.random.default_rng(_SEED).permutation(logit_NT) if change.permuted else logit_NT
