"""Decides which profiles a project has: what its teacher says of each user and each item on average, as features.

Shapes: B rows, N rows of a table.
"""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import Entity, Feature, FeatureSpec
from graft.init.plan import Plan, Profile
from graft.init.teacher_match import Candidate
from graft.init.teacher_text import teacher_tables
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import outputs_of_rows
from teacher_cache.teacher import Teacher

_ROWS = 256
_REFERENCES: Mapping[Entity, int] = {"user": 200, "item": 64}  # items of a user, users of an item: as the example pairs
_FEWEST_REFERENCES = 8
_MOST_ROWS = 2_000_000  # that the teacher scores for the profiles of one table before the first event
_MOST_NUMBERS = 64  # of a vector: each is a column of the student
_ENTITIES: tuple[Entity, ...] = ("user", "item")

Values = dict[str, list[Any]]


class _Tried(NamedTuple):
    """The teacher of a project, and rows of its tables: users and items that are drawn independently."""

    teacher: Teacher
    domain_map: DomainMap
    features: list[Candidate]
    values: Values

    def outputs(self, entities: Collection[Entity]) -> dict[str, NDArray[np.float32]]:
        """What the teacher says of the B rows if it sees these entities alone, by task and vector; NaN: nothing."""
        columns = {
            one.name: self.values[one.name] if one.entity in entities and one.name in self.values else [None] * _ROWS
            for one in self.features
        }
        inputs = self.domain_map.map_rows({**columns, "": [None] * _ROWS}).inputs
        return outputs_of_rows(self.teacher, inputs)


def profiles_of(folder: Path, plan: Plan) -> list[Profile]:
    """The profiles of each entity that the teacher tells apart by what is known of it.

    Empty without tables of both users and items, from which references are drawn. A vector is a profile of the entity
    that it follows from. `folder` has the teacher's files.
    """
    if plan.teacher is None or plan.table("user") is None or plan.table("item") is None:
        return []
    tried = _tried(folder, plan)
    whole = tried.outputs(_ENTITIES)
    found = []
    for entity in _ENTITIES:
        varied = [name for name, value_B in tried.outputs([entity]).items() if _varies(value_B)]
        columns = [name for name in varied if whole[name].ndim == 1 or whole[name].shape[1] <= _MOST_NUMBERS]
        table = plan.table(entity)
        assert table is not None
        if columns:
            means = {name: _mean(whole[name]) for name in columns}
            found.append(Profile(entity, means, _references(entity, table.rows.num_rows)))
    return found


def _tried(folder: Path, plan: Plan) -> _Tried:
    assert plan.teacher is not None
    tables = "\n\n".join(teacher_tables(plan.name, str(plan.teacher_file), plan.teacher))
    config = TeacherConfig.model_validate(tomllib.loads(tables)["teacher"])
    teacher = load_teacher(config, folder)
    features = [match.candidate for match in plan.teacher.inputs if match.candidate]
    spec = FeatureSpec(
        feast_project=plan.name,
        user_join_key="user_id",
        item_join_key="item_id",
        user_id_type="int" if plan.log.user_whole else "str",
        item_id_type="int" if plan.log.item_whole else "str",
        entity_key_serialization_version=3,
        features=tuple(map(_feature, {one.name: one for one in features}.values())),
    )
    return _Tried(teacher, DomainMap(config, folder, teacher, spec), features, _values(plan, features))


def _feature(one: Candidate) -> Feature:
    dtype: Any = one.dtype
    source: Any = one.name if one.name in ("user_id", "item_id") else one.entity or "context"
    return Feature(name=one.name, source=source, role="passthrough", dtype=dtype, default=None)


def _values(plan: Plan, features: list[Candidate]) -> Values:
    """Of each feature that a table has its values in B rows of it."""
    draw = np.random.default_rng(0)
    values: Values = {}
    for entity in _ENTITIES:
        table = plan.table(entity)
        assert table is not None
        rows = table.rows.take(draw.integers(table.rows.num_rows, size=_ROWS))
        for one in features:
            view, _, column = one.name.rpartition(":")
            if one.name == f"{entity}_id" or view == table.view:
                values[one.name] = rows[column].to_pylist()
    return values


def _varies(value_B: NDArray[np.float32]) -> bool:
    """Whether an output is not the same for all rows, but for rounding."""
    known_B = _known(value_B)
    return bool(len(known_B)) and bool((np.ptp(known_B, axis=0) > 1e-6 * (1 + np.abs(known_B).max())).any())


def _mean(value_B: NDArray[np.float32]) -> float | list[float]:
    mean = np.atleast_1d(_known(value_B).mean(axis=0)) if len(_known(value_B)) else np.zeros(value_B.shape[1:] or 1)
    rounded = [float(f"{value:.4g}") for value in mean]
    return rounded if value_B.ndim > 1 else rounded[0]


def _known(value_B: NDArray[np.float32]) -> NDArray[np.float64]:
    known: NDArray[np.float64] = value_B[np.isfinite(value_B.reshape(len(value_B), -1)).all(axis=1)].astype(np.float64)
    return known


def _references(entity: Entity, ids: int) -> int:
    """Fewer where there are many ids, so that the profiles before the first event do not take hours."""
    return max(_FEWEST_REFERENCES, min(_REFERENCES[entity], _MOST_ROWS // ids))
