"""A cell against the learner process on the same log: bootstrap, cached logits and all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.spec import FeatureSpec
from graft.project import Project
from lab.study.grid import Grid, Variant
from lab.study.learners.plan import Cell, Keys, cells_of
from lab.study.learners.teachers import requests_of
from lab.study.learners.worker import Workplace, run_cells
from lab.study.log.memory_store import open_store
from lab.study.log.study_log import StudyLog, read_log, scores_of, write_log
from runtime.telemetry import StopSignal
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from student.evaluate.arms import ARMS
from student.evaluate.evaluation import RECENT_EXAMPLES
from student.learn.bootstrap import run_bootstrap, sample_rows
from student.learn.config import PublishConfig
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.learn.setup import LearnerSetup
from student.versions.manifest import StudentConfig
from student.versions.registry import Registry
from teacher_cache.backfill.backfill import backfill
from teacher_cache.cache.cache import LogitCache
from teacher_cache.domain.context_key import ContextKey
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher
from tests.lab.study.conftest import Pair, no_progress
from tests.rows import Listed

STEP = StudentConfig().micro_batch
_BOOTSTRAP = {"rows": 500, "steps": 20}


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
def log(pair: Pair) -> StudyLog:
    """The first impression of each (user, item): a row has one logit in the cache, in a study each impression has.

    Whole steps of them: a learner process judges an example with its step, a study all that it has learnt.
    """
    first = {(r.example.user_id, r.example.item_id): r for r in reversed(pair.log.records)}
    records = sorted(first.values(), key=lambda record: record.offset)
    return pair.log._replace(records=records[: len(records) // STEP * STEP])


def test_a_cell_scores_what_the_learner_process_scores_on_the_same_log(
    pair: Pair, log: StudyLog, redis_url: str, tmp_path: Path
) -> None:
    variant = Variant(name="v", bootstrap=True, tables={"bootstrap": _BOOTSTRAP})
    cell, _plain = cells_of(Grid(seeds=1, baseline="v", windows=[0, 500], variants=[variant]), pair.project, pair.spec)
    write_log(tmp_path / "log", log.records)
    # 1. The process: bootstrap, then the log with logits that a backfill has put into Redis.
    setup, label_NK, value_NKA = _process(cell, pair, log, redis_url, tmp_path)
    # 2. The study, in a process of its own, from the files that it reads, and from nothing else.
    keys = Keys(read_log(tmp_path / "log", pair.spec), pair.day_zero)
    place = Workplace(tmp_path / "log", pair.spec, pair.day_zero, keys, tmp_path / "out")
    (result,) = run_cells([cell], place, jobs=1, advance=no_progress)
    # 3. The same score of every arm, to the last digit: as it is of each prediction.
    assert result.examples == len(label_NK) > 500
    assert result.scores["all"] == scores_of(setup.tasks, ARMS, label_NK, value_NKA)
    assert result.scores["0-500"] == scores_of(setup.tasks, ARMS, label_NK[:500], value_NKA[:500])
    assert result.scores["all"]["click"].keys() == set(ARMS)


def _process(
    cell: Cell, pair: Pair, log: StudyLog, redis_url: str, folder: Path
) -> tuple[LearnerSetup, NDArray[np.float32], NDArray[np.float32]]:
    """What a learner process predicted, [N, K, A], and the labels; N fit into the window that its version keeps."""
    project, setup = cell.project, cell.project.learner_setup(pair.spec)
    teacher = RequestScorer(*_teacher(project, pair.spec), pair.spec)
    tasks = [task.name for task in project.teacher.tasks]
    cache = LogitCache(redis_url, "tiny:g1", tasks, 3600, ContextKey.seen_by(project.teacher, pair.spec))
    requests = requests_of(log)
    backfill(Listed(requests), teacher, cache, batch_rows=len(requests), progress=no_progress)
    registry, stop = Registry(folder / "versions"), StopSignal()
    run_bootstrap(
        setup=setup,
        config=project.bootstrap,
        teacher=project.teacher,
        registry=registry,
        rows=sample_rows(pair.day_zero.users, pair.day_zero.items, project.bootstrap.rows, project.student.seed),
        reader=open_store(project, pair.spec, pair.day_zero.sources),
        scorer=teacher,
    )
    run_training(
        setup,
        Examples(lambda _offsets: _Source(folder / "log", stop)),
        Teaching(cache, project.teacher.version),
        Publication(registry, PublishConfig(every_seconds=60)),
        stop,
    )
    newest = registry.latest()
    assert newest is not None
    manifest, tensors, _ = registry.load_learner(newest)
    assert manifest.bootstrapped_rows == project.bootstrap.rows
    assert manifest.examples < RECENT_EXAMPLES
    learnt = slice(manifest.examples)
    return setup, tensors["evaluation/label"][learnt], tensors["evaluation/value"][learnt]


def _teacher(project: Project, spec: FeatureSpec) -> tuple[Teacher, DomainMap]:
    teacher = load_teacher(project.teacher, project.folder)
    return teacher, DomainMap(project.teacher, project.folder, teacher, spec)
