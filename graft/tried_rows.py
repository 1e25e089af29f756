"""Rows of a project's own tables on which `graft check` tries the teacher."""

from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.repo.store import view_sources
from features.spec import FeatureSpec
from graft.project import Project
from runtime.folder import open_parquet
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.domain_map_faults import probability_warnings
from teacher_cache.teacher import Teacher

_ROWS = 256


def teacher_warnings(project: Project, spec: FeatureSpec, teacher: Teacher, redis_url: str) -> list[str]:
    """What is odd of the teacher's outputs on the first rows of the batch tables; a dump is not tried."""
    config = project.needed_teacher
    if config.dump is not None:
        return []
    columns = _columns(spec, _tables(project, spec, redis_url))
    inputs = DomainMap(config, project.folder, teacher, spec).map_rows(columns).inputs
    found = probability_warnings(teacher, config.tasks, inputs)
    return [f"teacher task {name}: {warning}" for name, warning in found.items()]


def _tables(project: Project, spec: FeatureSpec, redis_url: str) -> dict[str, dict[str, list[Any]]]:
    """The first rows of each batch table by view, and those of users and items under user_id and item_id."""
    found: dict[str, dict[str, list[Any]]] = {}
    ids = {spec.user_join_key: "user_id", spec.item_join_key: "item_id"}
    for view, file in view_sources(project.repo, redis_url).tables.items():
        if file.path.is_file() and file.join_key in ids:
            found[view] = _first_rows(file.path)
            found.setdefault(ids[file.join_key], {"": found[view].get(file.join_key, [])})
    return found


def _first_rows(path: Path) -> dict[str, list[Any]]:
    """Empty where the file cannot be read: that is for what needs it to say."""
    try:
        batch = next(open_parquet(path).iter_batches(batch_size=_ROWS), None)
    except (OSError, pa.ArrowException):
        return {}
    return batch.to_pydict() if batch is not None else {}


def _columns(spec: FeatureSpec, tables: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """A value a row of each feature; missing where no table has it."""
    columns = {}
    for feature in spec.features:
        held = tables.get(feature.view or feature.name, {}).get(feature.feature, [])
        columns[feature.name] = list(islice(cycle(held), _ROWS)) if held else [feature.default] * _ROWS
    return columns
