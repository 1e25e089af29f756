"""Reads a log in any form: an event file in the documented form, or a table whose columns must be understood."""

from collections.abc import Callable
from typing import NamedTuple

from graft.init.columns import Column, columns_of
from graft.init.decide import decide
from graft.init.documented import Documented, documented_roles, is_documented, read_documented
from graft.init.log import Log, read_log
from graft.init.roles import Given, Roles
from graft.init.tables import Table
from runtime.errors import InvalidInputError


class AnyLog(NamedTuple):
    """A log, what its columns are, and its feedback where it is an event file."""

    table: Table
    roles: Roles
    log: Log
    documented: Documented | None


def decided(columns: dict[str, Column], given: Given) -> Roles:
    """The roles; InvalidInputError with every question that only a human can answer."""
    roles = decide(columns, given)
    if roles.questions:
        raise InvalidInputError("\n".join(question.unanswered(columns) for question in roles.questions))
    return roles


def read_any_log(
    where: str, given: Given, decide_roles: Callable[[dict[str, Column], Given], Roles] = decided
) -> AnyLog:
    """Read the whole log; InvalidInputError names what cannot be read. The columns of an event file are known."""
    table = Table(where)
    columns = columns_of(table.batches())
    if not any(column.rows for column in columns.values()):
        raise InvalidInputError(f"{where}: no rows below the names of the columns{table.told_left_out()}")
    if not is_documented(columns):
        roles = decide_roles(columns, given)
        return AnyLog(table, roles, read_log(table, roles), None)
    if given.columns or given.labels:
        raise InvalidInputError(f"{where}: events in the documented form already; leave --map and --label out")
    read = read_documented(table, columns)
    return AnyLog(table, documented_roles(columns, read), read.log, read)
