"""A process of a study: it reads the log once, and learns one cell after the other."""

import logging
import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lab.study.arriving import Arriving
from lab.study.cell import run_cell
from lab.study.changed_profiles import ChangedProfiles, ids_of
from lab.study.day_zero import DayZeroColumns
from lab.study.grid import TeacherChange
from lab.study.learner_log import log_to
from lab.study.observed_learner import Teaching
from lab.study.plan import Cell, window_seconds
from lab.study.recount import recounted
from lab.study.study_log import StudyLog, known_after, read_log
from lab.study.teachers import StudyTeacher, Unshown, kept_logits, told_of
from lab.study.thinning import KeptUsers
from lab.study.workplace import Workplace
from runtime.errors import InvalidInputError
from runtime.folder import replacing
from student.learn.bootstrap import DayZeroRows
from student.learn.config import FEWEST_ROWS
from student.learn.learner import Learner

_LOG = logging.getLogger(__name__)
_KEPT_LOGS = 3  # of a process: a cell needs up to two, and seeds of one share follow each other


class Worker:
    """One process: it reads the log once, for all of its cells."""

    place: Workplace
    log: StudyLog
    unshown: ClassVar[dict[str, Unshown]] = {}
    """By a key of what they depend on, which the seed is not."""
    logs: ClassVar[dict[str, StudyLog]] = {}
    """Those that were thinned or counted anew, by their key."""
    day_zero_columns: ClassVar[DayZeroColumns] = DayZeroColumns()

    @classmethod
    def start(cls, place: Workplace) -> None:
        """Read the log; the process ends with the study."""
        threading.Thread(target=_end_with_the_study, daemon=True).start()
        cls.place = place
        cls.log = read_log(place.log_folder, place.spec, place.generation, place.log_events)

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
        unshown = cls._unshown(cell, log.first(cell.events)) if project.unshown.ratio > 0 else None
        rows = None
        if cell.variant.bootstrap and place.day_zero.begin_ms >= project.needed_teacher.logits_from_ms:
            rows = cls._day_zero_rows(cell, StudyTeacher(change, project, log.spec), profiles)
        return Teaching(logit_NT, unshown, rows)

    @classmethod
    def _day_zero_rows(cls, cell: Cell, teacher: StudyTeacher, profiles: ChangedProfiles | None) -> DayZeroRows | None:
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

    @classmethod
    def _unshown(cls, cell: Cell, log: StudyLog) -> Unshown:
        config, change = cell.project.unshown, cell.variant.teacher
        key = f"{cls.place.keys.logits(cell)} {config.model_dump_json()} {cell.events}"
        if key not in cls.unshown:
            teacher, told = StudyTeacher(change, cell.project, log.spec), told_of(change, cell.project, log)
            cls.unshown[key] = Unshown(teacher, config, log, told, cell.project.needed_teacher.logits_from_ms)
        return cls.unshown[key]


def _end_with_the_study() -> None:
    """End this worker with the study: without it the worker would finish its cell and then wait for ever."""
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)
