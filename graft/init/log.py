"""A log in one form, whatever form it came in: one row an impression, with its labels and its context."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.config import ContextDtype
from features.contract import MAX_TEXT_CHARACTERS
from graft.init.columns import FIRST_MS, Column, codes_of, columns_of, flags, ids, large, numbers, texts, times_ms
from graft.init.decide import decide
from graft.init.roles import TASK_NAME, ContextColumn, Given, Label, Pick, Roles, context_dtype
from graft.init.tables import Table, column
from runtime.errors import InvalidInputError

DAY_MS = 86_400_000
AHEAD_MS = 300_000
"""Rows further ahead of the clock are left out: as events they would be dead letters."""

IN_THE_FUTURE = "rows whose time is in the future"
"""Their reason in `left_out`."""


_SILENT_SHARE = 0.05
"""Of the log's rows: so many before a task's first label look as if the label was not logged then."""


@dataclass(frozen=True)
class Log:
    """Rows by time: user, item, time_ms, label.TASK, context.NAME and, if the log has it, impression.

    `left_out` counts rows that cannot be events, by reason. `unsorted`: rows that came before an earlier one.
    `user_whole`, `item_whole`: whether the ids are integers.
    """

    rows: pa.Table
    left_out: Counter[str]
    unsorted: int
    user_whole: bool
    item_whole: bool

    def has_midnights_alone(self) -> bool:
        """Whether every time is a midnight in UTC, as where the log has dates."""
        times = self.rows["time_ms"].to_numpy()
        return len(times) > 1 and not (times % DAY_MS).any()

    def label_begins_ms(self, name: str) -> int | None:
        """The time of a task's first label, where a twentieth of the rows or more lie before it; else None.

        None, too, where the log has no label 0: there a row without a label is a no.
        """
        labels = self.rows[f"label.{name}"]
        if not labels.null_count or not pc.any(pc.equal(labels, 0.0)).as_py():
            return None
        first = int(pc.index(pc.is_valid(labels), True).as_py())
        is_late = first >= _SILENT_SHARE * len(labels)
        return int(self.rows["time_ms"][first].as_py()) if is_late else None

    def doubled(self) -> int:
        """How many rows have the user, item and time of an earlier one, told apart by a hash of 64 bits."""
        time = self.rows["time_ms"].to_numpy().view(np.uint64)
        user, item = (codes_of(self.rows[name]).astype(np.uint64) for name in ("user", "item"))
        with np.errstate(over="ignore"):
            key = (time * np.uint64(0x9E3779B97F4A7C15)) ^ (user * np.uint64(0xC2B2AE3D27D4EB4F))
            key = (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + item * np.uint64(0x94D049BB133111EB)
        key.sort()
        return int((key[1:] == key[:-1]).sum())


def read_log(table: Table, roles: Roles) -> Log:
    """All rows of a log that can be events; InvalidInputError if there is none.

    Memory: the numbers and texts of the columns that have a role, and once more while rows are put in order.
    """
    whole = {role: roles.columns[roles.column(role)].kind == "int" for role in ("user", "item")}
    left_out: Counter[str] = Counter()
    batches = []
    now_ms = time.time_ns() // 1_000_000
    for batch in table.batches():
        rows = _rows(batch, roles, whole)
        usable = usable_rows(rows, left_out, now_ms)
        if usable.num_rows:
            batches.append(usable)
    left_out.update(table.left_out)
    if not batches:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in left_out.most_common()) or "there are none"
        raise InvalidInputError(f"{table.where}: no row can be an event: {reasons}")
    rows = _with_unique_impressions(pa.concat_tables(batches), left_out)
    times = rows["time_ms"].to_numpy()
    unsorted = int((np.diff(times) < 0).sum())
    if unsorted:
        rows = rows.take(pa.array(np.argsort(times, kind="stable")))
    return Log(rows, left_out, unsorted, whole["user"], whole["item"])


def _rows(batch: pa.RecordBatch, roles: Roles, whole: dict[str, bool]) -> pa.Table:
    found = {role: large(ids(column(batch, roles.column(role)), whole=whole[role])) for role in ("user", "item")}
    found["time_ms"] = times_ms(column(batch, roles.column("time")), roles.unit)
    for label in roles.labels:
        found[f"label.{label.name}"] = label.values(batch)
    for context in roles.context:
        found[f"context.{context.name}"] = context_values(column(batch, context.column), context.dtype)
    if "impression" in roles.picks:
        found["impression"] = large(ids(column(batch, roles.column("impression")), whole=False))
    return pa.table(found)


def context_values(values: Any, dtype: str) -> Any:
    """Values of one context column in its type; of integers, yes and no are 1 and 0."""
    if dtype == "str":
        return large(texts(values))
    if dtype == "float":
        return numbers(values)
    if pa.types.is_boolean(values.type):
        return flags(values).cast(pa.int64())
    found = ids(values, whole=True)
    return pc.coalesce(found, flags(values).cast(pa.int64())) if found.null_count else found


def usable_rows(rows: pa.Table, left_out: Counter[str], now_ms: int) -> pa.Table:
    """The rows with user, item and a time that is not in the future; the others are counted."""
    for name in ("user", "item"):
        rows = _keep(rows, pc.is_valid(rows[name]), f"rows without {name} id", left_out)
        if pa.types.is_large_string(rows[name].type):
            short = pc.less_equal(pc.utf8_length(rows[name]), MAX_TEXT_CHARACTERS)
            rows = _keep(rows, short, f"rows with a {name} id of more than {MAX_TEXT_CHARACTERS} characters", left_out)
    rows = _keep(rows, pc.is_valid(rows["time_ms"]), "rows without a time that can be read", left_out)
    rows = _keep(rows, pc.greater_equal(rows["time_ms"], FIRST_MS), "rows whose time is before 1990", left_out)
    return _keep(rows, pc.less_equal(rows["time_ms"], now_ms + AHEAD_MS), IN_THE_FUTURE, left_out)


def _with_unique_impressions(rows: pa.Table, left_out: Counter[str]) -> pa.Table:
    """The rows; without their impression ids where one of these is missing, doubled or too long."""
    if "impression" not in rows.column_names:
        return rows
    ids = rows["impression"]
    longest = pc.max(pc.utf8_length(ids)).as_py()
    if not ids.null_count and len(pc.unique(ids)) == len(ids) and longest <= MAX_TEXT_CHARACTERS:
        return rows
    left_out["impression ids of the log, of which some are missing or doubled; rows got new ones"] = len(ids)
    return rows.drop_columns(["impression"])


def _keep(rows: pa.Table, mask: Any, reason: str, left_out: Counter[str]) -> pa.Table:
    dropped = len(mask) - (pc.sum(mask).as_py() or 0)
    if not dropped:
        return rows
    left_out[reason] += dropped
    return rows.filter(mask)


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
        rows = _event_rows(batch, whole, context)
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


def _event_rows(batch: pa.RecordBatch, whole: dict[str, bool], context: list[ContextColumn]) -> pa.Table:
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


_LEVELS = 50
_FEWEST_ROWS = 20 * _LEVELS  # below, 50 levels tell much of any label by chance
_LEAKED = 0.98  # of AUC: what is known before the answer hardly tells as much


class Leak(NamedTuple):
    """The AUC of a binary label by one context column alone, each of whose levels has its own share of yes."""

    context: str
    label: str
    auc: float


def leaks(log: Log, labels: list[Label]) -> Iterator[Leak]:
    """Each context column that alone orders the rows as a label does. None of a log with few rows."""
    if log.rows.num_rows < _FEWEST_ROWS:
        return
    for name in log.rows.column_names:
        if name.startswith("context.") and (level_N := _levels(log.rows[name])) is not None:
            for label in labels:
                auc = _auc(level_N, log.rows[f"label.{label.name}"]) if label.kind == "binary" else None
                if auc is not None and auc >= _LEAKED:
                    yield Leak(name.removeprefix("context."), label.name, auc)


def _levels(column: Any) -> NDArray[np.int64] | None:
    """The level of each row: its value, or which fiftieth of the numbers it lies in; None of texts of many values."""
    code_N = codes_of(column) + 1
    if code_N.max() <= _LEVELS:
        return code_N
    if pa.types.is_large_string(column.type):
        return None
    value_N = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    edges = np.nanquantile(value_N, np.arange(1, _LEVELS) / _LEVELS)
    level_N: NDArray[np.int64] = np.searchsorted(edges, value_N)
    return level_N


def _auc(level_N: NDArray[np.int64], column: Any) -> float | None:
    """The AUC of the level's share of yes; None where the label never changes."""
    yes_N = pc.fill_null(column, 0.0).to_numpy()
    rows_L, yes_L = np.bincount(level_N), np.bincount(level_N, yes_N)
    no_L = rows_L - yes_L
    order = np.argsort(yes_L / np.maximum(rows_L, 1))
    right_pairs = (yes_L[order] * (np.cumsum(no_L[order]) - no_L[order] / 2)).sum()
    pairs = yes_L.sum() * no_L.sum()
    return float(right_pairs / pairs) if pairs else None
