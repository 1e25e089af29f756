"""The fixtures pair, its log joined in memory, its teacher's logits, and a study that starts no process."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from features.repo.store import compile_spec, known_ids, view_sources
from features.spec import FeatureSpec
from graft.project import Project, load_project
from lab.study.learners.teachers import DayZero
from lab.study.learners.worker import Worker
from lab.study.log.log_in_memory import records_of
from lab.study.log.memory_store import Sources
from lab.study.log.study_log import StudyLog

NO_REDIS = "redis://127.0.0.1:6379/0"
EVENTS = 2_000


class Pair(NamedTuple):
    project: Project
    spec: FeatureSpec
    day_zero: DayZero
    events: Path
    log: StudyLog


def no_progress(_done: int, _total: int | None) -> None:
    pass


def pair_of(folder: Path, events: Path, count: int) -> Pair:
    """The pair of a project; the first `count` lines of its events are written to `events`."""
    events.write_text("".join((folder / "events.jsonl").read_text().splitlines(keepends=True)[:count]))
    project = load_project(folder)
    spec = compile_spec(project.repo, NO_REDIS, project.features)
    views = view_sources(project.repo, NO_REDIS)
    tables = {view: (table.path, table.join_key, table.timestamp_field) for view, table in views.tables.items()}
    sources = Sources(tables, views.pushed)
    log = StudyLog(spec, list(records_of(project, spec, sources, events, no_progress)))
    day_zero = DayZero(sources, *known_ids(project.repo, NO_REDIS, spec), log.event_times_ms[0])
    return Pair(project, spec, day_zero, events, log)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A copy of the fixtures with the first of its events. Shared: nothing may change it."""
    folder = tmp_path_factory.mktemp("study") / "pair"
    shutil.copytree(Path(__file__).parents[3] / "fixtures" / "simulated", folder)
    events = folder / "events.jsonl"
    return pair_of(folder, events, EVENTS)


@pytest.fixture(scope="session")
def logits(pair: Pair) -> NDArray[np.float32]:
    """Drawn, not scored: what they mean does not matter here."""
    teacher_tasks = len(pair.project.teacher.tasks)
    return np.random.default_rng(0).standard_normal((len(pair.log.records), teacher_tasks)).astype(np.float32)


class _ThisProcess:
    """Does at once what a pool of processes would do."""

    def __init__(self, _processes: int, _context: object, start: Callable[..., None], arguments: tuple[Any]) -> None:
        start(*arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def submit(self, learn: Callable[..., None], *arguments: object) -> Future[None]:
        learn(*arguments)
        done: Future[None] = Future()
        done.set_result(None)
        return done


@pytest.fixture
def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are learnt in this process: a worker's import of torch takes longer than a small cell.

    What a worker itself is given and does is for test_cell.py, test_run.py and test_studied.py.
    """
    monkeypatch.setattr("lab.study.learners.worker.ProcessPoolExecutor", _ThisProcess)
    monkeypatch.setattr("lab.study.learners.worker.log_to", lambda *_: None)  # a worker's log lines all go to a file
    monkeypatch.setattr(Worker, "logs", {})
