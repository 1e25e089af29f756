"""What the target has that a source may have too: its features with their values, its ids, its time line."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.config import FeaturesConfig
from features.repo.store import BatchFile, check_spec, view_sources
from features.spec import Dtype, Entity, Feature, FeatureSpec
from graft.init.any_log import read_any_log
from graft.init.entity_table import words_at
from graft.init.labels import Label
from graft.init.log import Log
from graft.init.plan import Plan
from graft.init.roles import Given
from graft.project import Project
from runtime.errors import ConfigurationError, InvalidInputError

InputKind = Literal["number", "codes", "vector"]

_KINDS: Mapping[str, InputKind] = {"dense": "number", "embedding": "vector", "categorical": "codes"}


class TargetFeature(NamedTuple):
    """A feature as graft.toml names it. `entity`: user, item, or "" of context.

    `values`: of the rows of its table, or of the log. `words`: what the numbers of a list say; none: not known.
    """

    name: str
    entity: Entity | Literal[""]
    kind: InputKind
    dtype: Dtype
    values: Any
    words: tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        """Its name without that of its view."""
        return self.name.rpartition(":")[2]


class Target(NamedTuple):
    """`tables`: of users and items, with the ids in the column user_id or item_id. `labels`: its tasks."""

    log: Log
    labels: list[Label]
    tables: Mapping[Entity, pa.Table]
    features: list[TargetFeature]


def target_of_plan(plan: Plan) -> Target:
    """Of a project that is about to be written."""
    features = [
        TargetFeature(
            f"{table.view}:{feature.name}",
            table.entity,
            _KINDS.get(feature.role, "codes"),
            feature.dtype,
            table.rows[feature.name],
            feature.words,
        )
        for table in plan.tables
        for feature in table.features
    ]
    dtypes = {context.name: context.dtype for context in plan.roles.context}
    tables = {table.entity: table.rows for table in plan.tables}
    return Target(plan.log, plan.roles.labels, tables, features + _of_context(plan.log, dtypes))


def target_of_project(project: Project, redis_url: str, *, with_unlisted: bool) -> Target:
    """Of a project as its folder is now; also with texts of its tables, and context, that [features] does not list.

    ConfigurationError with the faults of its features, InvalidInputError where its events cannot be read.
    """
    found = read_any_log(str(project.event_file), Given())
    files = view_sources(project.repo, redis_url).tables
    read = {view: rows for view, file in files.items() if (rows := _rows(file))}
    spec = _spec(project, redis_url, _texts(read, files) if with_unlisted else [])
    entities: dict[str, Entity] = {spec.user_join_key: "user", spec.item_join_key: "item"}
    read = {view: rows for view, rows in read.items() if files[view].join_key in entities}
    tables: dict[Entity, pa.Table] = {}
    for view, rows in read.items():
        entity = entities[files[view].join_key]
        named = rows.rename_columns({files[view].join_key: f"{entity}_id"})
        tables[entity] = max(tables.get(entity, named), named, key=lambda table: table.num_columns)
    features = [
        _of_table(feature, read[feature.view])
        for feature in spec.features
        if feature.view in read and feature.feature in read[feature.view].column_names
    ]
    listed = {feature.name for feature in spec.features}
    dtypes = {
        name: declared.dtype
        for name, declared in project.features.context.items()
        if with_unlisted or f"context:{name}" in listed
    }
    labels = [Label(task.name, task.kind) for task in project.tasks]
    return Target(found.log, labels, tables, features + _of_context(found.log, dtypes))


def unlisted(config: FeaturesConfig, names: list[str]) -> list[str]:
    """Those of the features that [features] does not list."""
    listed = {*config.dense, *config.categorical, *config.embedding, *config.passthrough}
    return [name for name in names if name not in listed]


def _texts(read: Mapping[str, pa.Table], files: Mapping[str, BatchFile]) -> list[str]:
    """The columns of texts that the tables have beside their ids."""
    return [
        f"{view}:{field.name}"
        for view, rows in read.items()
        for field in rows.schema
        if pa.types.is_string(field.type) and field.name != files[view].join_key
    ]


def _spec(project: Project, redis_url: str, texts: list[str]) -> FeatureSpec:
    """The feature spec, with the texts that are not listed if Feast has them all."""
    config = project.features
    more = [*config.passthrough, *unlisted(config, texts)]
    for wanted in (config.model_copy(update={"passthrough": more}), config):
        compiled = check_spec(project.repo, redis_url, wanted)
        if compiled.spec is not None:
            return compiled.spec
    raise ConfigurationError(compiled.faults)


def _rows(file: BatchFile) -> pa.Table | None:
    """A batch table; None where it is missing or has no such ids. InvalidInputError when it cannot be read."""
    if not file.path.exists():
        return None
    try:
        rows = pq.read_table(file.path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{file.path}: cannot be read: {error}") from None
    return rows if file.join_key in rows.column_names else None


def _of_table(feature: Feature, rows: pa.Table) -> TargetFeature:
    entity: Entity = "user" if feature.source == "user" else "item"
    by_type: dict[str, InputKind] = {"float": "number", "float_list": "vector"}
    kind = _KINDS.get(feature.role, by_type.get(feature.dtype, "codes"))
    words = words_at(rows.schema.field(feature.feature))
    return TargetFeature(feature.name, entity, kind, feature.dtype, rows[feature.feature], words)


def _of_context(log: Log, dtypes: Mapping[str, Dtype]) -> list[TargetFeature]:
    return [
        TargetFeature(f"context:{name}", "", "number" if dtype == "float" else "codes", dtype, values)
        for name, dtype in dtypes.items()
        if (values := _column(log.rows, f"context.{name}")) is not None and pc.count(values).as_py()
    ]


def _column(rows: pa.Table, name: str) -> Any:
    return rows[name] if name in rows.column_names else None
