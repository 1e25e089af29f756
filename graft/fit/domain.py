"""What the two domains have: a log, its tasks, tables of users and items, and the features that these give.

Shapes: N rows of a log in time order; V rows of a feature's table, or of the log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.repo.store import BatchFile, check_spec, view_sources
from features.spec import Dtype, Entity
from graft.init.entity_table import EntityTable, read_entity_tables, words_at
from graft.init.log import Log, read_any_log
from graft.init.plan import Plan
from graft.init.roles import Given, Label, Roles
from graft.project import Project
from runtime.errors import ConfigurationError, InvalidInputError

InputKind = Literal["number", "codes", "vector"]

_KINDS: Mapping[str, InputKind] = {"dense": "number", "embedding": "vector", "categorical": "codes"}
_KINDS_BY_DTYPE: Mapping[str, InputKind] = {"float": "number", "float_list": "vector"}


class DomainFeature(NamedTuple):
    """A feature as graft.toml names it. `entity`: user, item, or "" of context.

    `values`: of the V rows of its table, or of the log. `words`: what the numbers of a list say; none: not known.
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


class Ids(NamedTuple):
    """The users or items of a log's N rows: the place of each row's id in `distinct`."""

    place_N: NDArray[np.int32]
    distinct: pa.Array

    def counts(self) -> NDArray[np.int64]:
        """How many rows each distinct id has."""
        return np.bincount(self.place_N, minlength=len(self.distinct))


@dataclass(frozen=True)
class Domain:
    """Source or target. `tables`: of users and items, with the ids in the column user_id or item_id."""

    where: str
    log: Log
    labels: list[Label]
    tables: Mapping[Entity, pa.Table]
    features: list[DomainFeature]

    @cached_property
    def ids(self) -> Mapping[Entity, Ids]:
        """The log's users and items."""
        return {"user": _ids(self.log.rows["user"]), "item": _ids(self.log.rows["item"])}

    @property
    def times_ms(self) -> NDArray[np.int64]:
        """The time of each row, [N]."""
        times: NDArray[np.int64] = self.log.rows["time_ms"].to_numpy()
        return times

    def values_of(self, feature: DomainFeature) -> Any:
        """A feature's value for each distinct id, null where its table lacks the id; of context for each row."""
        if not feature.entity:
            return feature.values
        distinct = self.ids[feature.entity].distinct
        keys = self.tables[feature.entity][f"{feature.entity}_id"].cast(distinct.type).combine_chunks()
        return feature.values.combine_chunks().take(pc.index_in(distinct, value_set=keys))


class SourceFiles(NamedTuple):
    """Where the source's log is, and its tables."""

    events: str
    users: str | None = None
    items: str | None = None


def read_source(files: SourceFiles, given: Given, option: str = "--") -> Domain:
    """Read the source's log and tables; InvalidInputError names what cannot be read.

    `option`: what the options for --map and --label begin with, as errors name them.
    """
    try:
        read = read_any_log(files.events, given)
    except InvalidInputError as error:
        message = str(error).replace("--map", f"{option}map").replace("--label", f"{option}label")
        raise InvalidInputError(f"the source's log: {message}") from None
    paths: dict[Entity, str | None] = {"user": files.users, "item": files.items}
    return _domain(files.events, read.log, read.roles, read_entity_tables(paths, read.roles, read.log))


def domain_of_plan(plan: Plan) -> Domain:
    """Of a project that is about to be written."""
    return _domain(plan.name, plan.log, plan.roles, plan.tables)


def domain_of_project(project: Project, redis_url: str, *, with_unlisted: bool) -> Domain:
    """Of a project as its folder is now; also with texts of its tables, and context, that [features] does not list.

    ConfigurationError with the faults of its features, InvalidInputError where its events cannot be read.
    """
    log = read_any_log(str(project.event_file), Given()).log
    files = view_sources(project.repo, redis_url).tables
    rows_of = {view: rows for view, file in files.items() if (rows := _rows(file))}
    texts = [
        f"{view}:{field.name}"
        for view, rows in rows_of.items()
        for field in rows.schema
        if pa.types.is_string(field.type) and field.name != files[view].join_key
    ]
    config = project.features
    more = [*config.passthrough, *missing(project, texts if with_unlisted else [])]
    spec = check_spec(project.repo, redis_url, config.model_copy(update={"passthrough": more})).spec
    if spec is None:  # Feast does not have all of these texts
        compiled = check_spec(project.repo, redis_url, config)
        if (spec := compiled.spec) is None:
            raise ConfigurationError(compiled.faults)
    entities: dict[str, Entity] = {spec.user_join_key: "user", spec.item_join_key: "item"}
    tables: dict[Entity, pa.Table] = {}
    for view, rows in rows_of.items():
        if entity := entities.get(files[view].join_key):
            table = rows.rename_columns({files[view].join_key: f"{entity}_id"})
            tables[entity] = max(tables.get(entity, table), table, key=lambda rows: rows.num_columns)
    features = []
    for feature in spec.features:
        rows = rows_of.get(feature.view)
        if rows is not None and files[feature.view].join_key in entities and feature.feature in rows.column_names:
            kind = _KINDS.get(feature.role, _KINDS_BY_DTYPE.get(feature.dtype, "codes"))
            words = words_at(rows.schema.field(feature.feature))
            entity = "user" if feature.source == "user" else "item"
            features.append(DomainFeature(feature.name, entity, kind, feature.dtype, rows[feature.feature], words))
    listed = {feature.name for feature in spec.features}
    dtypes = {n: c.dtype for n, c in config.context.items() if with_unlisted or f"context:{n}" in listed}
    labels = [Label(task.name, task.kind) for task in project.tasks]
    return Domain(project.name, log, labels, tables, [*features, *_of_context(log, dtypes)])


def missing(project: Project, names: Iterable[str]) -> list[str]:
    """Those of these features that [features] of graft.toml does not list."""
    config = project.features
    listed = {*config.dense, *config.categorical, *config.embedding, *config.passthrough}
    return [name for name in names if name not in listed]


def _domain(where: str, log: Log, roles: Roles, tables: list[EntityTable]) -> Domain:
    features = [
        DomainFeature(
            f"{table.view}:{feature.name}",
            table.entity,
            _KINDS.get(feature.role, "codes"),
            feature.dtype,
            table.rows[feature.name],
            feature.words,
        )
        for table in tables
        for feature in table.features
    ]
    features += _of_context(log, {context.name: context.dtype for context in roles.context})
    return Domain(where, log, roles.labels, {table.entity: table.rows for table in tables}, features)


def _of_context(log: Log, dtypes: Mapping[str, Dtype]) -> list[DomainFeature]:
    return [
        DomainFeature(f"context:{name}", "", "number" if dtype == "float" else "codes", dtype, values)
        for name, dtype in dtypes.items()
        if f"context.{name}" in log.rows.column_names and pc.count(values := log.rows[f"context.{name}"]).as_py()
    ]


def _rows(file: BatchFile) -> pa.Table | None:
    """A batch table; None where it is missing or has no such ids. InvalidInputError when it cannot be read."""
    if not file.path.exists():
        return None
    try:
        rows = pq.read_table(file.path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{file.path}: cannot be read: {error}") from None
    return rows if file.join_key in rows.column_names else None


def _ids(column: Any) -> Ids:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return Ids(encoded.indices.to_numpy().astype(np.int32), encoded.dictionary)
