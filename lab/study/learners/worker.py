"""Runs the cells of a grid in several processes. Each cell writes a file; a cell whose file is there is not run."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from graft.progress import Advance
from lab.study.grid import TeacherChange
from lab.study.learners.cell import Predictions, Result, Teaching, run_cell
from lab.study.learners.plan import Cell, Keys, window_seconds
from lab.study.learners.teachers import ChangedProfiles, DayZero, DayZeroColumns, StudyTeacher, ids_of, kept_logits
from lab.study.log.log_in_memory import recounted
from lab.study.log.study_log import Arriving, KeptUsers, StudyLog, known_after, read_log
from runtime.errors import GraftError, InvalidInputError
from runtime.folder import replacing
from student.learn.bootstrap import BootstrapRows
from student.learn.config import FEWEST_ROWS
from student.learn.learner import Learner

FILE = "learners.log"
"""In the folder that a study writes to; it is there once a learner has said something."""


def log_to(folder: Path, learner: str) -> None:
    """Append this process's log lines from now on to the folder's file, each with the name of the learner."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / FILE, encoding="utf-8", delay=True)
    quoted = learner.replace("%", "%%")
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {quoted}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class Workplace(NamedTuple):
    """Where a study reads its log and keeps what it has computed."""

    log_folder: Path
    spec: FeatureSpec
    day_zero: DayZero
    keys: Keys
    out: Path
    log_events: int | None = None
    """The grid's."""

    def result_path(self, cell: Cell) -> Path:
        """The file of a finished cell."""
        return self.out / "results" / f"{self.keys.result(cell)}.json"

    def predictions_path(self, cell: Cell) -> Path:
        """The file of its predictions."""
        return self.out / "predictions" / f"{self.keys.result(cell)}.npz"

    def predictions(self, cell: Cell) -> Predictions:
        """The predictions of a finished cell."""
        with np.load(self.predictions_path(cell), allow_pickle=False) as kept:
            return Predictions(**kept)


_LOG = logging.getLogger(__name__)
_KEPT_LOGS = 3  # of a process: a cell needs up to two, and seeds of one share follow each other


class Worker:
    """One process: it reads the log once, for all of its cells."""

    place: Workplace
    log: StudyLog
    logs: ClassVar[dict[str, StudyLog]] = {}
    """Those that were thinned or counted anew, by their key."""
    day_zero_columns: ClassVar[DayZeroColumns] = DayZeroColumns()

    @classmethod
    def start(cls, place: Workplace) -> None:
        """Read the log; the process ends with the study."""
        threading.Thread(target=_end_with_the_study, daemon=True).start()
        cls.place = place
        cls.log = read_log(place.log_folder, place.spec, place.log_events)

    @classmethod
    def run(cls, cell: Cell) -> None:
        """Learn a cell, and write its predictions and its result."""
        log_to(cls.place.out, cell.name)
        Learner(cell.project.learner_setup(cls.log.spec))  # compiles, on a machine's first start for a minute or more
        started = time.monotonic()
        profiles = cls._profiles(cell)
        log = cls._log(cell)
        arriving = cls._arriving(cell, log)
        if profiles is not None:
            log, arriving = profiles.of_log(log), arriving._replace(log=profiles.of_log(arriving.log))
        result, predictions = run_cell(cell, log, cls._teaching(cell, log, profiles), arriving)
        place = cls.place
        with replacing(place.predictions_path(cell)) as file:
            np.savez_compressed(file, **predictions._asdict())
        with replacing(place.result_path(cell)) as file:
            file.write(result.model_copy(update={"seconds": time.monotonic() - started}).model_dump_json().encode())

    @classmethod
    def _log(cls, cell: Cell) -> StudyLog:
        """The examples of the cell's share of users, whose running aggregates count these users alone."""
        if cell.share == 1:
            return cls.log
        key = cls.place.keys.log(cell)
        if key not in cls.logs:
            thinned = cls._kept_users(cell).thinned(cls.log)
            cls._keep(key, cls._recounted(cell, thinned, window_seconds(cell.project)))
        return cls.logs[key]

    @classmethod
    def _arriving(cls, cell: Cell, log: StudyLog) -> Arriving:
        if cell.served_knows_less:
            key = cls.place.keys.served_log(cell)
            if key not in cls.logs:
                cls._keep(key, cls._recounted(cell, log, cell.delay_seconds))
            log = cls.logs[key]
        return Arriving(log, cls._logits(cell, log, served=True), known_after(cell.delay_seconds, log.event_times_ms))

    @classmethod
    def _recounted(cls, cell: Cell, log: StudyLog, delay_seconds: float) -> StudyLog:
        configs, pushed = cell.project.features.aggregates, cls.place.day_zero.sources.pushed
        return recounted(log, configs, pushed, known_after(delay_seconds, log.event_times_ms))

    @classmethod
    def _keep(cls, key: str, log: StudyLog) -> None:
        """Keep a log for the cells that follow, and forget the oldest one kept."""
        cls.logs[key] = log
        if len(cls.logs) > _KEPT_LOGS:
            del cls.logs[next(iter(cls.logs))]

    @classmethod
    def _kept_users(cls, cell: Cell) -> KeptUsers:
        return KeptUsers((example.user_id for example in cls.log.examples), cell.share, cell.seed)

    @classmethod
    def _logits(cls, cell: Cell, log: StudyLog, *, served: bool) -> NDArray[np.float32]:
        place = cls.place
        key = place.keys.served_logits(cell) if served else place.keys.logits(cell)
        return kept_logits(place.out / "logits" / f"{key}.npz", cell.variant.teacher, cell.project, log)

    @classmethod
    def _profiles(cls, cell: Cell) -> ChangedProfiles | None:
        """Those of the cell's teacher where it is not the project's own; None where the log has the right ones."""
        change = cell.variant.teacher
        if change == TeacherChange() or not cell.project.features.profiles:
            return None
        day_zero = cls.place.day_zero
        ids = ids_of(cls.log, day_zero.users, day_zero.items)
        return ChangedProfiles(change, cell.project, cls.log.spec, day_zero.sources, ids)

    @classmethod
    def _teaching(cls, cell: Cell, log: StudyLog, profiles: ChangedProfiles | None) -> Teaching:
        project, change, place = cell.project, cell.variant.teacher, cls.place
        logit_NT = cls._logits(cell, log, served=False)
        if not project.distillation or cell.is_plain:
            return Teaching(logit_NT)
        rows = None
        if cell.variant.bootstrap and place.day_zero.begin_ms >= project.needed_teacher.logits_from_ms:
            rows = cls._day_zero_rows(cell, StudyTeacher(change, project, log.spec), profiles)
        return Teaching(logit_NT, rows)

    @classmethod
    def _day_zero_rows(
        cls, cell: Cell, teacher: StudyTeacher, profiles: ChangedProfiles | None
    ) -> BootstrapRows | None:
        """The rows of its bootstrap; None where the teacher scores too few, such as a dump of shown rows alone."""
        place, day_zero = cls.place, cls.place.day_zero
        if cell.share < 1:
            day_zero = day_zero._replace(users=cls._kept_users(cell).of(day_zero.users))
        path = place.out / "day_zero" / f"{place.keys.day_zero(cell)}.npz"
        try:
            rows = day_zero.kept_rows(path, cell.project, teacher, cls.day_zero_columns, profiles)
        except InvalidInputError as error:
            _LOG.warning("learns without a bootstrap: %s", error)
            return None
        scored = int(np.isfinite(rows.logit_PT).any(axis=1).sum())
        if scored < FEWEST_ROWS:
            _LOG.warning("learns without a bootstrap: %d rows have logits, it needs %d", scored, FEWEST_ROWS)
            return None
        return rows


def _end_with_the_study() -> None:
    """End this worker with the study: without it the worker would finish its cell and then wait for ever."""
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)


def run_cells(cells: Sequence[Cell], place: Workplace, jobs: int, advance: Advance) -> list[Result]:
    """The result of every cell, in their order; only those without a file are run, `jobs` at a time.

    GraftError when a process is killed.
    """
    paths = {place.result_path(cell): cell for cell in cells}
    missing = [cell for path, cell in paths.items() if not path.exists()]
    done = len(cells) - len(missing)
    advance(done, len(cells))
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(missing)), context, Worker.start, (place,)) as pool:
            try:
                for finished in as_completed([pool.submit(Worker.run, cell) for cell in missing]):
                    finished.result()
                    done += 1
                    advance(done, len(cells))
            except BrokenProcessPool:
                fewer = f"--jobs than {jobs}: what is finished is not learnt again" if jobs > 1 else "--events"
                raise GraftError(
                    f"a learner's process was killed, most often for want of memory; start again with fewer {fewer}"
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [_result(cell, place) for cell in cells]


def _result(cell: Cell, place: Workplace) -> Result:
    result = Result.model_validate_json(place.result_path(cell).read_text("utf-8"))
    return result.model_copy(update={"variant": cell.variant.name})
