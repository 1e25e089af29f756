"""Reads an event file in the documented form as the rows of a log: impressions with the labels of their feedback."""

import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.config import ContextDtype
from graft.init.columns import Column
from graft.init.labels import TASK_NAME, Label
from graft.init.log import Log, context_values, usable_rows
from graft.init.roles import ContextColumn, Pick, Roles, context_dtype
from graft.init.tables import Table, column
from graft.init.values import codes_of, ids, large, numbers, texts, times_ms
from runtime.errors import InvalidInputError


class Documented(NamedTuple):
    """The rows, the tasks, the context, and what of the feedback does not fit.

    `delays_ms`: task -> of each feedback, the time since its impression. `without_impression`: feedback whose
    impression is not in the file. `doubled`: impressions with the id of an earlier one.
    """

    log: Log
    labels: list[Label]
    context: list[ContextColumn]
    delays_ms: dict[str, Any]
    without_impression: int
    doubled: int


def is_documented(columns: dict[str, Column]) -> bool:
    """Whether a table has the columns of the documented form."""
    return {"type", "impression_id", "event_time_ms"} <= columns.keys()


def documented_roles(columns: dict[str, Column], read: Documented) -> Roles:
    """The roles of the columns of an event file, which are what they are called."""
    roles = Roles(columns, labels=read.labels, context=read.context)
    for role, name in (
        ("user", "user_id"),
        ("item", "item_id"),
        ("time", "event_time_ms"),
        ("impression", "impression_id"),
    ):
        roles.picks[role] = Pick(role, name, "the documented form")
    roles.context_why = {context.column: "the documented form" for context in read.context}
    return roles


def read_documented(table: Table, columns: dict[str, Column]) -> Documented:
    """All impressions of the file with their labels; the last feedback of a task holds."""
    whole = {name: columns[name].kind == "int" if name in columns else False for name in ("user_id", "item_id")}
    context = [
        ContextColumn(name.removeprefix("context."), name, _context_dtype(found))
        for name, found in columns.items()
        if name.startswith("context.") and found.kind != "empty"
    ]
    left_out: Counter[str] = Counter()
    shown, told = [], []
    now_ms = time.time_ns() // 1_000_000
    for batch in table.batches():
        kinds = texts(column(batch, "type"))
        rows = _rows(batch, whole, context)
        is_shown, is_told = (pc.fill_null(pc.equal(kinds, kind), False) for kind in ("impression", "feedback"))
        left_out["lines that are neither impression nor feedback"] += pc.sum(
            pc.invert(pc.or_(is_shown, is_told))
        ).as_py()
        shown.append(usable_rows(rows.filter(is_shown).drop_columns(["task", "value"]), left_out, now_ms))
        answers = rows.filter(is_told).select(["impression", "time_ms", "task", "value"])
        told.append(answers.filter(pc.field("time_ms").is_valid() & pc.field("task").is_valid()))
    left_out.update(table.left_out)
    if not sum(part.num_rows for part in shown):
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
        raise InvalidInputError(f"{table.where}: no impression that can be read: {reasons or 'there is none'}")
    feedback = pa.concat_tables(told)
    _check_tasks(table.where, pc.unique(feedback["task"]).to_pylist())
    return _joined(pa.concat_tables(shown), feedback, +left_out, whole, context)


def _context_dtype(column: Column) -> ContextDtype:
    """The type in which the events themselves have it: they are copied, so "yes" stays a text."""
    return "str" if column.kind == "bool" else context_dtype(column)


def _rows(batch: pa.RecordBatch, whole: dict[str, bool], context: list[ContextColumn]) -> pa.Table:
    found = {
        "user": large(ids(column(batch, "user_id"), whole=whole["user_id"])),
        "item": large(ids(column(batch, "item_id"), whole=whole["item_id"])),
        "time_ms": times_ms(column(batch, "event_time_ms"), "ms"),
        "impression": large(ids(column(batch, "impression_id"), whole=False)),
        "task": texts(column(batch, "task")),
        "value": numbers(column(batch, "value")),
    }
    for named in context:
        found[f"context.{named.name}"] = context_values(column(batch, named.column), named.dtype)
    return pa.table(found)


def _joined(
    shown: pa.Table, told: pa.Table, left_out: Counter[str], whole: dict[str, bool], context: list[ContextColumn]
) -> Documented:
    unsorted = int((np.diff(shown["time_ms"].to_numpy()) < 0).sum())
    shown = _in_order(shown)
    told = _in_order(told)
    at = _positions(shown["impression"], told["impression"])
    known = at >= 0
    delays_ms = told["time_ms"].to_numpy()[known] - shown["time_ms"].to_numpy()[at[known]]
    names = pc.unique(told["task"]).to_pylist()
    tasks = pc.index_in(told["task"], value_set=pa.array(names, pa.string())).to_numpy()[known]
    values = told["value"].to_numpy()[known]
    labels, delays = [], {}
    for number, name in enumerate(names):
        of_task = tasks == number
        column_of = np.full(shown.num_rows, np.nan)
        column_of[at[known][of_task]] = values[of_task]
        is_binary = bool(np.isin(values[of_task], (0.0, 1.0)).all())
        labels.append(Label(name, "binary" if is_binary else "regression", "value", why="its feedback"))
        shown = shown.append_column(f"label.{name}", pa.array(column_of, from_pandas=True))
        delays[name] = delays_ms[of_task]
    doubled = shown.num_rows - len(pc.unique(shown["impression"]))
    log = Log(shown, left_out, unsorted, whole["user_id"], whole["item_id"])
    return Documented(log, labels, context, delays, int((~known).sum()), doubled)


def _in_order(rows: pa.Table) -> pa.Table:
    """The rows by time; without a copy where they are so already."""
    times = rows["time_ms"].to_numpy()
    return rows.take(np.argsort(times, kind="stable")) if (np.diff(times) < 0).any() else rows


def _check_tasks(where: str, names: list[str]) -> None:
    """InvalidInputError where a project could not have these tasks."""
    if not names:
        raise InvalidInputError(f"{where}: no feedback of any task is in it; name the log that has it")
    for name in names:
        if not TASK_NAME.fullmatch(name):
            raise InvalidInputError(
                f"{where}: the name of the task {name!r} must be a lower-case letter, then lower-case letters, digits "
                "and '_'; rename it in the file"
            )


def _positions(ids_of: Any, wanted: Any) -> Any:
    """Where each wanted id stands first; -1 where it does not."""
    found = codes_of(pa.chunked_array([*ids_of.chunks, *wanted.chunks], ids_of.type))
    first = np.full(found.max(initial=0) + 2, -1)  # the last one stands for a missing id
    first[found[: len(ids_of)][::-1]] = np.arange(len(ids_of))[::-1]
    first[-1] = -1
    return first[found[len(ids_of) :]]
