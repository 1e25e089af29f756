"""Runs the cells of a grid on several processes; each leaves a file, and those that are there already are not run."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import ClassVar, NamedTuple

from features.spec import FeatureSpec
from graft.progress import Advance
from graft.study.cell import Result, Teaching, run_cell
from graft.study.day_zero import DayZero
from graft.study.grid import Cell
from graft.study.study_log import StudyLog, read_log
from graft.study.teachers import Logits, StudyTeacher, Unshown


class Workplace(NamedTuple):
    """Where a study reads its log and keeps what it has computed."""

    log_folder: Path
    spec: FeatureSpec
    day_zero: DayZero
    out: Path

    def logits(self, log_key: str) -> Logits:
        """The logits of that log."""
        return Logits(self.out / "logits", log_key)

    def result_path(self, cell: Cell) -> Path:
        """The file of a finished cell."""
        return self.out / "results" / f"{cell.key}.json"


def run_cells(cells: Sequence[Cell], log: StudyLog, place: Workplace, jobs: int, advance: Advance) -> list[Result]:
    """The result of every cell, in their order; only those without a file are run, `jobs` at a time."""
    (place.out / "results").mkdir(parents=True, exist_ok=True)
    for cell in cells:
        place.logits(cell.log).compute(cell.variant.teacher, cell.project, log)
    missing = list({cell.key: cell for cell in cells if not place.result_path(cell).exists()}.values())
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
        cls.place, cls.log = place, read_log(place.log_folder, place.spec)

    @classmethod
    def run(cls, cell: Cell) -> None:
        result = run_cell(cell, cls.log, cls._teaching(cell))
        path = cls.place.result_path(cell)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(result.model_dump_json(), "utf-8")
        partial.replace(path)

    @classmethod
    def _teaching(cls, cell: Cell) -> Teaching:
        project, change = cell.project, cell.variant.teacher
        logit_NT = cls.place.logits(cell.log).load(change)
        if not project.distillation or not cell.variant.learner:
            return Teaching(logit_NT)
        log = cls.log.first(cell.events)
        unshown = cls._unshown(cell, log) if project.unshown.ratio > 0 else None
        pairs = None
        if cell.variant.bootstrap:
            name = f"{cell.log}-{change.key}-{project.bootstrap.pairs}-{cell.seed}.npz"
            teacher = StudyTeacher(change, project, log.spec)
            pairs = cls.place.day_zero.kept_pairs(cls.place.out / "day_zero" / name, project, teacher, log.spec)
        return Teaching(logit_NT, unshown, pairs)

    @classmethod
    def _unshown(cls, cell: Cell, log: StudyLog) -> Unshown:
        config, change = cell.project.unshown, cell.variant.teacher
        key = f"{change.key} {config.model_dump_json()} {cell.events}"
        if key not in cls.unshown:
            cls.unshown[key] = Unshown(StudyTeacher(change, cell.project, log.spec), config, log)
        return cls.unshown[key]
