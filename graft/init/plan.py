"""What a project folder will say: the log, the tables and the teacher, as the values of graft.toml."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.spec import Entity, Feature, FeatureSpec
from graft.init.entity_table import EntityTable
from graft.init.log import Log
from graft.init.roles import Label, Roles
from graft.init.teacher_match import Candidate, Matched
from graft.init.toml_text import teacher_tables
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import outputs_of_rows
from teacher_cache.teacher import Teacher

WINDOW_SECONDS = 10
TEACHER = "teacher.onnx"
"""The file of a teacher in a project folder, unless it is named otherwise."""
DRAWN_NEGATIVES = 4
"""Negatives beside each row of a log of positives alone, where nobody says how many."""
_RATE_STRENGTH = 10
_MEAN_STRENGTH = 5


class Base(NamedTuple):
    """Of a task's labels: the share of yes, or the mean; the lowest, the highest; the share of rows that have one."""

    mean: float
    low: float
    high: float
    filled: float


class Profile(NamedTuple):
    """What the teacher says of each id of an entity on average over `references` ids of the other entity.

    `means`: task or vector of the teacher -> about its mean over all ids; a column of the view has the same name.
    """

    entity: Entity
    means: Mapping[str, float | list[float]]
    references: int

    @property
    def view(self) -> str:
        """The name of its feature view."""
        return f"{self.entity}_teacher"

    @property
    def widths(self) -> dict[str, int]:
        """Of each column: how many numbers a vector has; 0 of a number."""
        return {name: len(mean) if isinstance(mean, list) else 0 for name, mean in self.means.items()}

    def of_role(self, role: Literal["dense", "embedding"]) -> list[str]:
        """Its numbers, or its vectors, as [features] lists them."""
        return [f"{self.view}:{name}" for name, width in self.widths.items() if bool(width) == (role == "embedding")]


@dataclass
class Plan:
    """All that is written. `teacher`: None where there is none.

    `windows`: task -> window_seconds, where the log tells how long an answer takes. `event_file`: a file in the
    documented form, which is copied as it is. `negatives`: how many are drawn beside each row of a log of positives
    alone; None: nobody has said.
    """

    name: str
    roles: Roles
    log: Log
    tables: list[EntityTable] = field(default_factory=list)
    teacher: Matched | None = None
    teacher_file: Path = Path(TEACHER)
    windows: dict[str, float] = field(default_factory=dict)
    event_file: Path | None = None
    bases: dict[str, Base] = field(default_factory=dict)
    profiles: list[Profile] = field(default_factory=list)
    negatives: int | None = None

    def table(self, entity: Entity) -> EntityTable | None:
        """The table of users or items; None where there is none."""
        return next((table for table in self.tables if table.entity == entity), None)

    @property
    def is_positives_only(self) -> bool:
        """Whether every row says yes to every binary task: then nothing tells what was not taken."""
        binary = [self.bases[label.name] for label in self.roles.labels if label.kind == "binary"]
        return bool(binary) and all(base.low == base.high == 1 for base in binary)

    @property
    def drawn_negatives(self) -> int:
        """How many negatives the stream draws beside each positive."""
        if not self.is_positives_only:
            return 0
        return DRAWN_NEGATIVES if self.negatives is None else self.negatives

    def aggregates(self) -> dict[str, str]:
        """The columns of the running aggregates, the same for users and items."""
        columns = {"shown": "count"}
        for label in self.roles.labels:
            base = self.bases[label.name]
            if base.low == base.high:
                continue  # a label that never changes says nothing of an id
            name, strength = ("rate", _RATE_STRENGTH) if label.kind == "binary" else ("mean", _MEAN_STRENGTH)
            columns[f"{name}_{label.name}"] = f"rate({label.name}, {base.mean:.4g}, {strength})"
        return columns

    def lists(self) -> dict[str, list[str]]:
        """The features by their role, as [features] lists them."""
        found: dict[str, list[str]] = {
            "dense": [],
            "categorical": ["user_id", "item_id"],
            "embedding": [],
            "passthrough": [],
        }
        for table in self.tables:
            for feature in table.features:
                if feature.role:
                    found[feature.role].append(f"{table.view}:{feature.name}")
        found["dense"] += [f"{entity}_activity:{column}" for entity in ("user", "item") for column in self.aggregates()]
        found["categorical"] += [
            f"context:{context.name}" for context in self.roles.context if context.dtype != "float"
        ]
        found["dense"] += [f"context:{context.name}" for context in self.roles.context if context.dtype == "float"]
        for profile in self.profiles:
            found["dense"] += profile.of_role("dense")
            found["embedding"] += profile.of_role("embedding")
        if self.teacher:
            listed = {name for names in found.values() for name in names}
            fed = [match.candidate.name for match in self.teacher.inputs if match.candidate]
            found["passthrough"] = [name for name in dict.fromkeys(fed) if name not in listed]
        return found

    def defaults(self) -> dict[str, Any]:
        """What a feature is where an id has none: about the mean."""
        listed = {name for names in self.lists().values() for name in names}
        of_tables = {
            f"{table.view}:{feature.name}": feature.default
            for table in self.tables
            for feature in table.features
            if feature.default not in (None, 0) and f"{table.view}:{feature.name}" in listed
        }
        return of_tables | {f"{p.view}:{name}": mean for p in self.profiles for name, mean in p.means.items()}

    def context_default(self, name: str, dtype: str) -> Any:
        """The most frequent value of a context column; of one of floats the mean."""
        values = self.log.rows[f"context.{name}"].drop_null()
        if dtype == "float":
            return float(f"{pc.mean(values).as_py() or 0:.4g}")
        counted = pc.value_counts(values)
        if not len(counted):
            return "" if dtype == "str" else 0
        return counted.field("values")[int(np.argmax(counted.field("counts")))].as_py()

    def candidates(self) -> Iterator[Candidate]:
        """What may feed an input of the teacher."""
        yield _id_candidate("user", self.log)
        yield _id_candidate("item", self.log)
        for table in self.tables:
            for feature in table.features:
                filled, default = table.covered * feature.filled, feature.default if feature.default is not None else 0
                name, low, high = f"{table.view}:{feature.name}", feature.low, feature.high
                yield Candidate(name, table.entity, feature.dtype, filled, low, high, default, max(1, feature.width))
        for context in self.roles.context:
            held = self.roles.columns[context.column]
            low, high = (held.low, held.high) if held.kind in ("int", "float") else (0.0, 1.0)
            default = self.context_default(context.name, context.dtype)
            yield Candidate(f"context:{context.name}", "", context.dtype, held.filled, low, high, default)
        for entity in ("user", "item"):
            for column, rule in self.aggregates().items():
                label = next((label for label in self.roles.labels if f"({label.name}," in rule), None)
                low, high = self._range(label)
                default = self.bases[label.name].mean if label else 0.0
                yield Candidate(f"{entity}_activity:{column}", entity, "float", 1.0, low, high, default)

    def _range(self, label: Label | None) -> tuple[float, float]:
        base = self.bases[label.name] if label else None
        return (base.low, base.high) if base else (0.0, float(self.log.rows.num_rows))


def codes_folder(teacher_file: str) -> Path:
    """Where the codes of a teacher's inputs are, beside its file."""
    path = Path(teacher_file)
    return path.with_name(f"{path.stem}_codes")


def bases_of(log: Log, labels: list[Label]) -> dict[str, Base]:
    """What is known of each task's labels."""
    found = {}
    for label in labels:
        values = log.rows[f"label.{label.name}"]
        filled = 1 - values.null_count / len(values)
        if label.kind == "binary":
            values = pc.fill_null(values, 0.0)
        span = pc.min_max(values).as_py()
        found[label.name] = Base(pc.mean(values).as_py() or 0.0, span["min"] or 0.0, span["max"] or 0.0, filled)
    return found


def _id_candidate(entity: Entity, log: Log) -> Candidate:
    if log.user_whole if entity == "user" else log.item_whole:
        span = pc.min_max(log.rows[entity]).as_py()
        return Candidate(f"{entity}_id", entity, "int", 1.0, span["min"], span["max"])
    return Candidate(f"{entity}_id", entity, "str", 1.0, default="")


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
