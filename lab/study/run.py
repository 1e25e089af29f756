"""Runs the cells of a grid in several processes. Each cell writes a file; a cell whose file is there is not run."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import ClassVar, NamedTuple

from features.spec import FeatureSpec
from graft.progress import Advance
from lab.study.cell import Result, Teaching, run_cell
from lab.study.changed_profiles import ChangedProfiles, ids_of
from lab.study.day_zero import DayZero
from lab.study.grid import TeacherChange
from lab.study.keys import Keys
from lab.study.plan import Cell
from lab.study.study_log import StudyLog, read_log
from lab.study.teachers import StudyTeacher, Unshown, kept_logits
from runtime.folder import replacing


class Workplace(NamedTuple):
    """Where a study reads its log and keeps what it has computed."""

    log_folder: Path
    spec: FeatureSpec
    day_zero: DayZero
    keys: Keys
    out: Path

    def result_path(self, cell: Cell) -> Path:
        """The file of a finished cell."""
        return self.out / "results" / f"{self.keys.result(cell)}.json"


def run_cells(cells: Sequence[Cell], place: Workplace, jobs: int, advance: Advance) -> list[Result]:
    """The result of every cell, in their order; only those without a file are run, `jobs` at a time."""
    paths = {place.result_path(cell): cell for cell in cells}
    missing = [cell for path, cell in paths.items() if not path.exists()]
    done = len(cells) - len(missing)
    advance(done, len(cells))
    if missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(missing)), context, _Worker.start, (place,)) as pool:
            try:
                for finished in as_completed([pool.submit(_Worker.run, cell) for cell in missing]):
                    finished.result()
                    done += 1
                    advance(done, len(cells))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [_result(cell, place) for cell in cells]


def _result(cell: Cell, place: Workplace) -> Result:
    result = Result.model_validate_json(place.result_path(cell).read_text("utf-8"))
    return result.model_copy(update={"variant": cell.variant.name})


class _Worker:
    """One process: it reads the log once, for all of its cells."""

    place: Workplace
    log: StudyLog
    unshown: ClassVar[dict[str, Unshown]] = {}
    """By what they depend on; they do not on the seed."""

    @classmethod
    def start(cls, place: Workplace) -> None:
        threading.Thread(target=_end_with_the_study, daemon=True).start()
        cls.place, cls.log = place, read_log(place.log_folder, place.spec)

    @classmethod
    def run(cls, cell: Cell) -> None:
        profiles = cls._profiles(cell)
        log = cls.log if profiles is None else profiles.of_log(cls.log)
        result = run_cell(cell, log, cls._teaching(cell, profiles))
        with replacing(cls.place.result_path(cell)) as file:
            file.write(result.model_dump_json().encode())

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
    def _teaching(cls, cell: Cell, profiles: ChangedProfiles | None) -> Teaching:
        project, change, place = cell.project, cell.variant.teacher, cls.place
        logit_NT = kept_logits(place.out / "logits" / f"{place.keys.logits(cell)}.npz", change, project, cls.log)
        if not project.distillation or not cell.variant.learner:
            return Teaching(logit_NT)
        log = cls.log.first(cell.events)
        unshown = cls._unshown(cell, log) if project.unshown.ratio > 0 else None
        day_zero = None
        if cell.variant.bootstrap:
            path = place.out / "day_zero" / f"{place.keys.day_zero(cell)}.npz"
            day_zero = place.day_zero.kept_rows(
                path, project, StudyTeacher(change, project, log.spec), log.spec, profiles
            )
        return Teaching(logit_NT, unshown, day_zero)

    @classmethod
    def _unshown(cls, cell: Cell, log: StudyLog) -> Unshown:
        config, change = cell.project.unshown, cell.variant.teacher
        key = f"{cls.place.keys.teacher(cell)} {config.model_dump_json()} {cell.events}"
        if key not in cls.unshown:
            cls.unshown[key] = Unshown(StudyTeacher(change, cell.project, log.spec), config, log)
        return cls.unshown[key]


def _end_with_the_study() -> None:
    """End this worker with the study: without it the worker would finish its cell and then wait for ever."""
    study = multiprocessing.parent_process()
    if study is not None:
        wait([study.sentinel])
        os._exit(1)
