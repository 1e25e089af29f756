"""All cells of a grid: one learner each, checked against the project before the first of them runs."""

from collections.abc import Iterator
from typing import NamedTuple

from features.spec import FeatureSpec
from graft.project import Project
from lab.study.grid import PLAIN_VARIANT, Grid, TeacherChange, Variant
from lab.study.teachers import changed_config
from runtime.errors import ConfigurationError


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
