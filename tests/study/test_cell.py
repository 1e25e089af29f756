"""A cell against the learner process on the same log: bootstrap, cached logits, unshown pairs and all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from graft.study.cell import ObservedLearner, Teaching
from graft.study.grid import TeacherChange
from graft.study.memory_store import MemoryStore
from graft.study.study_log import StudyLog, read_log, write_log
from graft.study.teachers import StudyTeacher, Unshown, requests_of
from graft.telemetry import StopSignal
from stream.example_log import ExampleLog
from stream.examples import ExampleRecord
from student.bootstrap import run_bootstrap, sample_pairs
from student.config import BootstrapConfig, PublishConfig
from student.evaluation import ProgressiveEvaluation
from student.setup import LearnerSetup
from student.train import run_training
from student.versions import Registry
from teacher_cache.backfill import backfill
from teacher_cache.cache import LogitCache
from teacher_cache.config import UnshownConfig
from teacher_cache.unshown import UnshownCache, UnshownSampler, UnshownScorer
from tests.study.conftest import Pair

_BOOTSTRAP = BootstrapConfig(pairs=500, steps=20)
_UNSHOWN = UnshownConfig(ratio=1.5)


class _Source:
    """An example log as the learner process reads it; asks it to stop at its end."""

    def __init__(self, folder: Path, stop: StopSignal) -> None:
        self._batches = iter(ExampleLog(folder).read({}))
        self._stop = stop

    def poll(self, _timeout_seconds: float) -> Sequence[ExampleRecord]:
        records = next(self._batches, None)
        if records is None:
            self._stop.set()
        return records or []

    def lag(self) -> int:
        return 0

    def commit(self, offsets: Mapping[int, int]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def setup(pair: Pair) -> LearnerSetup:
    project = pair.project
    teacher_tasks = tuple(project.teacher.tasks)
    return LearnerSetup(pair.spec, tuple(project.tasks), tuple(project.distillation), teacher_tasks, project.student)


def test_study_and_learner_process_predict_the_same_on_the_same_log(
    pair: Pair, setup: LearnerSetup, redis_url: str, tmp_path: Path
) -> None:
    project, teacher = pair.project, StudyTeacher(TeacherChange(), pair.project, pair.spec)
    write_log(tmp_path / "log", pair.log.records)
    # 1. The process: bootstrap, then the log with logits and pairs that a backfill has put into Redis.
    cache = LogitCache(redis_url, project.teacher.version, [task.name for task in project.teacher.tasks], 3600)
    unshown = UnshownCache(redis_url, project.teacher, pair.spec, 3600)
    pairs = UnshownScorer(UnshownSampler(pair.spec, _UNSHOWN), teacher, unshown)
    requests = requests_of(pair.log)
    backfill(requests, teacher, cache, len(requests), pairs, progress=lambda _done, _total: None)
    registry, stop = Registry(tmp_path / "versions"), StopSignal()
    run_bootstrap(
        setup=setup,
        config=_BOOTSTRAP,
        teacher=project.teacher,
        registry=registry,
        pairs=sample_pairs(pair.day_zero.users, pair.day_zero.items, _BOOTSTRAP.pairs, project.student.seed),
        reader=MemoryStore(pair.spec, pair.day_zero.sources, project.features.aggregates),
        scorer=teacher,
    )
    run_training(
        setup=setup,
        publish=PublishConfig(every_seconds=60),
        teacher_version=project.teacher.version,
        registry=registry,
        cache=cache,
        unshown=unshown,
        open_source=lambda _offsets: _Source(tmp_path / "log", stop),
        stop=stop,
    )
    newest = registry.latest()
    assert newest is not None
    process = registry.load_manifest(newest)
    # 2. The study, from the log that it reads, and from nothing else.
    log = read_log(tmp_path / "log", pair.spec)
    changed = project.model_copy(update={"bootstrap": _BOOTSTRAP})
    day_zero = pair.day_zero.pairs(changed, teacher, pair.spec)
    logit_NT = cache.get([e.user_id for e in log.examples], [e.item_id for e in log.examples]).logit_BT
    learner = ObservedLearner(setup, log, Teaching(logit_NT, Unshown(teacher, _UNSHOWN, log)))
    learner.bootstrap(*day_zero, _BOOTSTRAP.steps)
    learner.learn_until(len(log.records))
    # 3. The same metrics of every arm, to the last digit.
    assert learner.examples == process.examples > 500
    assert _judged(setup, log, *learner.seen()) == process.metrics


def _judged(
    setup: LearnerSetup, log: StudyLog, label_NK: NDArray[np.float32], value_NKA: NDArray[np.float32]
) -> object:
    """What the learner's own evaluation says of predictions, taken in the same micro-batches."""
    evaluation, size = ProgressiveEvaluation(setup.tasks), setup.student.micro_batch
    examples = log.examples[: len(label_NK)]
    for at in range(0, len(label_NK), size):
        rows = slice(at, at + size)
        users, items = [e.user_id for e in examples[rows]], [e.item_id for e in examples[rows]]
        evaluation.update(label_NK[rows], value_NKA[rows], users, items)
    return evaluation.whole()
