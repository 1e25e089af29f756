"""All cells of a grid, one learner each, checked before the first of them runs; and the keys of all that they keep.

A key is a digest of everything that the kept thing depends on, **except the code**: finished cells stay usable when
graft changes, as most changes leave their results alone. After a change that affects results, name another OUT.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from features.spec import FeatureSpec
from graft.project import Project
from lab.study.grid import PLAIN_VARIANT, Grid, TeacherChange, Variant
from lab.study.learners.teachers import DayZero, changed_config
from lab.study.log.memory_store import digest_of, teacher_files
from lab.study.log.study_log import StudyLog
from runtime.errors import ConfigurationError, InvalidInputError


class Cell(NamedTuple):
    """One learner: what it learns, and how.

    `delay_seconds`: of event time, after which the labels of an impression are known. `share`: of the users whose
    examples it learns, drawn by the seed.
    """

    variant: Variant
    seed: int
    events: int | None
    windows: tuple[int, ...]
    project: Project
    delay_seconds: float
    share: float = 1.0

    @property
    def name(self) -> str:
        """As a message names it: ``variant grafted, 3 % of the users, seed 1``."""
        return f"variant {self.variant.name}, {100 * self.share:g} % of the users, seed {self.seed}"

    @property
    def is_plain(self) -> bool:
        """Whether models without a student learn, in place of a learner."""
        return self.variant.name == PLAIN_VARIANT

    @property
    def served_knows_less(self) -> bool:
        """Whether a served prediction knows fewer labels than the features that the stream would log."""
        return self.delay_seconds > window_seconds(self.project)


def window_seconds(project: Project) -> float:
    """After so long all labels of an impression are known."""
    return max(task.window_seconds for task in project.tasks)


def cells_of(grid: Grid, base: Project, spec: FeatureSpec) -> list[Cell]:
    """Every cell, seed by seed; ConfigurationError names each variant that does not fit the project.

    Reads no file, so it does not know whether the teachers are there.
    """
    faults = [fault for variant in grid.variants for fault in _faults(grid, variant, base, spec)]
    if faults:
        raise ConfigurationError(faults)
    most = max(variant.seeds or grid.seeds for variant in grid.variants)
    learners = [
        _cell(grid, variant, base, seed)
        for seed in range(1, most + 1)
        for variant in grid.variants
        if seed <= (variant.seeds or grid.seeds)
    ]
    baseline = next(variant for variant in grid.variants if variant.name == grid.baseline)
    plain = baseline.model_copy(update={"name": PLAIN_VARIANT, "seeds": 1, "bootstrap": False})
    return [*learners, _cell(grid, plain, base, 1), *_thin(grid, [baseline, plain], base)]


def _thin(grid: Grid, variants: list[Variant], base: Project) -> Iterator[Cell]:
    """The baseline and the plain models on each draw of each share of the users."""
    for share in grid.thin:
        for seed in range(1, grid.thin_draws + 1):
            for variant in variants:
                yield _cell(grid, variant, base, seed)._replace(share=share)


def _faults(grid: Grid, variant: Variant, base: Project, spec: FeatureSpec) -> Iterator[str]:
    try:
        _cell(grid, variant, base, 1).project.learner_setup(spec)
        if base.teacher or variant.teacher_as_input or variant.teacher != TeacherChange():
            changed_config(variant.teacher, base.needed_teacher)
    except ConfigurationError as error:
        for fault in error.faults:
            yield f"variant {variant.name}: {fault}"


def _cell(grid: Grid, variant: Variant, base: Project, seed: int) -> Cell:
    project = variant.project(base, seed)
    delay = max(grid.label_delay_seconds, window_seconds(project))
    return Cell(variant, seed, grid.events, tuple(grid.windows), project, delay)


_DRAWN = {"drawn_negatives", "drawn_by_popularity"}
"""What the log has been joined with, which is in its own key."""


class Keys:
    """The keys of cells that learn one log. Equal keys mean equal content."""

    def __init__(self, log: StudyLog, day_zero: DayZero) -> None:
        self._log = log.key
        self._tables = day_zero.sources.key
        self._teachers: dict[str, str] = {}

    def teacher(self, cell: Cell) -> str:
        """The key of its teacher: table, ONNX file, lookup files, change; "" without one.

        ConfigurationError when a file is missing.
        """
        change, project = cell.variant.teacher, cell.project
        if project.teacher is None:
            return ""
        config = changed_config(change, project.needed_teacher)
        told = change.model_dump_json() + config.model_dump_json()
        if told not in self._teachers:
            try:
                self._teachers[told] = digest_of([told, *teacher_files(config, project.folder)])
            except InvalidInputError as error:
                raise ConfigurationError([f"variant {cell.variant.name}: teacher: {error}"]) from None
        return self._teachers[told]

    def log(self, cell: Cell) -> str:
        """The key of the examples that it learns, and of those after them."""
        return self._log if cell.share == 1 else digest_of([self._log, f"{cell.share} {cell.seed}"])

    def served_log(self, cell: Cell) -> str:
        """The key of the same examples with the features that a served prediction knows."""
        log = self.log(cell)
        return digest_of([log, str(cell.delay_seconds)]) if cell.served_knows_less else log

    def logits(self, cell: Cell) -> str:
        """The key of the teacher's logits of the log."""
        return digest_of([self.log(cell), self.teacher(cell)])

    def served_logits(self, cell: Cell) -> str:
        """The key of the teacher's logits of `served_log`."""
        return digest_of([self.served_log(cell), self.teacher(cell)])

    def day_zero(self, cell: Cell) -> str:
        """The key of the rows of its bootstrap, with their features and logits."""
        rows = f"{cell.project.bootstrap.rows} {cell.seed}"
        return digest_of([self.log(cell), self._tables, self.teacher(cell), rows])

    def result(self, cell: Cell) -> str:
        """The key of its result."""
        variant = cell.variant
        unused: dict[str, Any] = dict.fromkeys(("publish", "stream", "features"), True)
        unused["sampling"] = _DRAWN
        if not variant.bootstrap:
            unused["bootstrap"] = True
        part = [cell.events, cell.windows, cell.is_plain, variant.teacher_as_input]
        project = cell.project.model_dump_json(exclude=unused)
        started = self.day_zero(cell) if variant.bootstrap else ""
        told = [json.dumps([part, cell.delay_seconds]), project, started]
        return digest_of([self.logits(cell), self.served_log(cell), *told])
