"""Reads what the source has: its log and its tables, in any form that `graft init` reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.spec import Entity
from graft.init.any_log import read_any_log
from graft.init.entity_table import EntityTable, read_entity_tables
from graft.init.labels import Label
from graft.init.log import Log
from graft.init.roles import ContextColumn, Given, Roles
from runtime.errors import InvalidInputError


class SourceFiles(NamedTuple):
    """Where the source's log is, and its tables."""

    events: str
    users: str | None = None
    items: str | None = None


class Ids(NamedTuple):
    """The users or items of a log's N rows: the place of each row's id in `distinct`."""

    place_N: NDArray[np.int32]
    distinct: pa.Array

    def counts(self) -> NDArray[np.int64]:
        """How many rows each distinct id has."""
        return np.bincount(self.place_N, minlength=len(self.distinct))


class SourceLog(NamedTuple):
    """The rows in time order, their users and items, and what the tables tell of these."""

    where: str
    log: Log
    roles: Roles
    ids: Mapping[Entity, Ids]
    tables: Mapping[Entity, EntityTable]

    @property
    def labels(self) -> list[Label]:
        """Its tasks."""
        return self.roles.labels

    @property
    def context(self) -> list[ContextColumn]:
        """Its columns of context."""
        return self.roles.context

    @property
    def times_ms(self) -> NDArray[np.int64]:
        """The time of each row."""
        times: NDArray[np.int64] = self.log.rows["time_ms"].to_numpy()
        return times

    def of_ids(self, entity: Entity, name: str) -> Any:
        """A column of a table for each distinct id, null where the table does not have the id."""
        table = self.tables[entity].rows
        distinct = self.ids[entity].distinct
        keys = table[f"{entity}_id"].cast(distinct.type).combine_chunks()
        column = table[name].combine_chunks()
        return column.take(pc.index_in(distinct, value_set=keys))


def read_source(files: SourceFiles, given: Given, option: str = "--") -> SourceLog:
    """Read log and tables; InvalidInputError names what cannot be read.

    `option`: what the options for --map and --label begin with, as errors name them.
    """
    try:
        found = read_any_log(files.events, given)
    except InvalidInputError as error:
        told = str(error).replace("--map", f"{option}map").replace("--label", f"{option}label")
        raise InvalidInputError(f"the source's log: {told}") from None
    log = found.log
    where: dict[Entity, str | None] = {"user": files.users, "item": files.items}
    tables = {table.entity: table for table in read_entity_tables(where, found.roles, log)}
    ids = {entity: _ids(log.rows[entity]) for entity in where}
    return SourceLog(files.events, log, found.roles, ids, tables)


def _ids(column: Any) -> Ids:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return Ids(encoded.indices.to_numpy().astype(np.int32), encoded.dictionary)
