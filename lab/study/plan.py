"""All cells of a grid: one learner each, checked against the project before the first of them runs."""

from collections.abc import Iterator
from typing import NamedTuple

from features.spec import FeatureSpec
from graft.project import Project
from lab.study.direct import direct_faults
from lab.study.grid import Grid, Variant
from lab.study.teachers import changed_config
from runtime.errors import ConfigurationError


class Cell(NamedTuple):
    """One learner: what it learns, and how."""

    variant: Variant
    seed: int
    events: int | None
    windows: tuple[int, ...]
    traffic: tuple[int, ...]
    project: Project


def cells_of(grid: Grid, base: Project, spec: FeatureSpec) -> list[Cell]:
    """Every cell, seed by seed; ConfigurationError names each variant that does not fit the project.

    Reads no file, so it does not know whether the teachers are there.
    """
    faults = [fault for variant in grid.variants for fault in _faults(grid, variant, base, spec)]
    if faults:
        raise ConfigurationError(faults)
    most = max(variant.seeds or grid.seeds for variant in grid.variants)
    return [
        _cell(grid, variant, base, seed)
        for seed in range(1, most + 1)
        for variant in grid.variants
        if seed <= (variant.seeds or grid.seeds)
    ]


def _faults(grid: Grid, variant: Variant, base: Project, spec: FeatureSpec) -> Iterator[str]:
    try:
        setup = _cell(grid, variant, base, 1).project.learner_setup(spec)
        changed_config(variant.teacher, base.teacher)
        for fault in direct_faults(variant.direct, setup.distillation):
            yield f"variant {variant.name}: {fault}"
    except ConfigurationError as error:
        for fault in error.faults:
            yield f"variant {variant.name}: {fault}"


def _cell(grid: Grid, variant: Variant, base: Project, seed: int) -> Cell:
    traffic = grid.traffic if variant.traffic is None else variant.traffic
    project = variant.project(base, seed, grid.tables)
    return Cell(variant, seed, variant.events or grid.events, tuple(grid.windows), tuple(traffic), project)
