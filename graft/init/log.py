"""A log in one form, whatever form it came in: one row an impression, with its labels and its context."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.contract import MAX_TEXT_CHARACTERS
from graft.init.roles import Roles
from graft.init.tables import Table, column
from graft.init.values import FIRST_MS, codes_of, flags, ids, large, numbers, texts, times_ms
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
