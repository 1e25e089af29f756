"""The batch tables: the users and items that are in them, and how the push log gets into those of pushed views.

Feast's `get_historical_features` reads them. A pushed view's table has a row for each push that changed an entity's
values. Its time is the first microsecond after `shown_ms`, so that the impressions read it that come later, and those
before it do not. Below all of them each entity has a row of 1970 without values: without one Feast 0.67 leaves the
impressions before the entity's first row out of its answer.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.repo.push_log import OWNER, SHOWN_MS, PushedTable, is_written, read_segment, segments
from features.spec import Entity, EntityId, FeatureSpec
from runtime.errors import GraftError
from runtime.folder import claim_folder, replacing

_TIME = pa.timestamp("us", tz="UTC")


class BatchTables:
    """Parquet tables, each with its join key and the column of its times; they may change while a process runs.

    A missing table has no ids.
    """

    def __init__(self, tables: Iterable[tuple[Path, str, str]], spec: FeatureSpec) -> None:
        self._tables = list(tables)
        self._join_keys: dict[Entity, str] = {"user": spec.user_join_key, "item": spec.item_join_key}

    def stamp(self) -> tuple[int, ...]:
        """When each table was written: equal to an earlier stamp as long as no table was written since."""
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path, *_ in self._tables)

    def ids(self, until: datetime | None = None) -> dict[Entity, list[EntityId]]:
        """The distinct usable ids of users and items, in order.

        Rows that begin after `until` do not count: their ids were not known then. A time without a zone is UTC.
        """
        found: dict[str, set[EntityId]] = {join_key: set() for join_key in self._join_keys.values()}
        for path, join_key, timestamp_field in self._tables:
            if join_key in found and path.exists():
                rows = pq.read_table(path, columns=[join_key, timestamp_field])
                if until is not None:
                    rows = rows.filter(pc.less_equal(_utc(rows[timestamp_field]), pa.scalar(until, _TIME)))
                values = rows[join_key].unique().to_pylist()
                found[join_key].update(value for value in values if value not in (None, ""))
        return {entity: sorted(found[join_key], key=str) for entity, join_key in self._join_keys.items()}


def _utc(times: Any) -> Any:
    """A column of times in UTC, whatever its unit and zone."""
    return times.cast(_TIME) if times.type.tz else pc.assume_timezone(times.cast(pa.timestamp("us")), "UTC")


_NUMBER = "graft_number"  # the order of the rows in the log


class Collected(NamedTuple):
    """What a table has now, and how many rows of the log were read for it."""

    rows: int
    entities: int
    log_rows: int


def make_table(table: PushedTable) -> None:
    """Make an empty table where there is none: Feast asks for one. GraftError when the disk refuses."""
    if not table.path.exists():
        with replacing(table.path) as file:
            pq.write_table(_rows(table, "", None), file)


def collect(table: PushedTable, keep_from: datetime | None = None) -> Collected:
    """Add what was pushed since the last time to the table, and remove what was added from the log.

    A log of another join state than the table's begins the table anew. Of what was pushed before `keep_from` each
    entity keeps its newest row alone. May run beside stream processes, whose segments are read but not removed. A kill
    leaves the table as it was or as it shall be. GraftError when the table has rows that graft did not write, when
    another collection is at work, and when the disk refuses.
    """
    with claim_folder(table.log_folder, "another 'graft features collect' is at work"):
        paths = segments(table.log_folder)
        ended = [path for path in paths if not is_written(path)]  # before they are read: these get no further rows
        old_owner, old = _old_rows(table)
        found = [read_segment(path) for path in paths]
        owner = next((owner for owner, _ in reversed(found) if owner), old_owner)
        logged = [_rows(table, owner, batch) for whose, batches in found if whose == owner for batch in batches]
        rows = _thinned(table, pa.concat_tables([_rows(table, owner, old if owner == old_owner else None), *logged]))
        if keep_from is not None:
            rows = _newest_before(table, rows, keep_from)
        with replacing(table.path) as file:
            pq.write_table(rows, file, compression="zstd")
        for path in ended:
            path.unlink()
    return Collected(rows.num_rows, pc.count_distinct(rows[table.join_key]).as_py(), sum(map(len, logged)))


def _old_rows(table: PushedTable) -> tuple[str, pa.Table | None]:
    """Whose the table's rows are, and these; none where there is no table yet, or an empty one."""
    if not table.path.exists():
        return "", None
    try:
        rows = pq.read_table(table.path)
    except (pa.ArrowException, OSError) as error:
        raise GraftError(f"{table.path}: cannot be read: {error}; move it away, then collect again") from error
    if not rows.num_rows:
        return "", None
    owner = (rows.schema.metadata or {}).get(OWNER, b"").decode()
    if not owner:
        raise GraftError(
            f"{table.path}: has rows that graft did not write; the batch table of a pushed view is for what the stream "
            "pushes: move it away, or give the view another batch source"
        )
    return owner, rows


def _rows(table: PushedTable, owner: str, found: pa.Table | pa.RecordBatch | None) -> pa.Table:
    """Rows of the table or of its log, as the table has them."""
    schema = table.schema(pa.field(table.timestamp_field, _TIME), owner=owner)
    if found is None:
        return schema.empty_table()
    try:
        columns = [found.column(name) for name in schema.names[:-1]]
        time = found.column(SHOWN_MS if SHOWN_MS in found.schema.names else table.timestamp_field)
    except KeyError as error:
        raise GraftError(
            f"{table.path}, {table.log_folder}: {error.args[0]}; the view has changed since: move both away, then "
            "collect again"
        ) from error
    if time.type == pa.int64():
        time = pc.add(pc.multiply(time, 1000), 1).cast(_TIME)
    return pa.Table.from_arrays([*columns, time], names=schema.names).cast(schema)


def _thinned(table: PushedTable, rows: pa.Table) -> pa.Table:
    """The rows by entity and time: of one moment the last, and none that says what the one before it says."""
    key, time = table.join_key, table.timestamp_field
    firsts = _before_all(table, rows)
    rows = pa.concat_tables([firsts, rows]).append_column(_NUMBER, pa.array(range(len(firsts) + len(rows)), pa.int64()))
    rows = rows.sort_by([(key, "ascending"), (time, "ascending"), (_NUMBER, "ascending")])
    rows = rows.filter(pa.array(~_as_next(rows, [key, time]))).drop_columns([_NUMBER])
    is_repeated = np.roll(_as_next(rows, [key, *table.columns]), 1)  # the last row is as no next one
    return rows.filter(pa.array(~is_repeated))


def _before_all(table: PushedTable, rows: pa.Table) -> pa.Table:
    """A row of 1970 without values for each entity."""
    ids = rows[table.join_key].combine_chunks().unique()
    nulls = [pa.nulls(len(ids), kind) for kind in table.columns.values()]
    time = pa.array([0] * len(ids), pa.int64()).cast(_TIME)
    return pa.Table.from_arrays([ids, *nulls, time], schema=rows.schema)


def _as_next(rows: pa.Table, columns: list[str]) -> NDArray[np.bool_]:
    """For each row whether it is equal in these columns to the next one; a missing value equals another one."""
    equal = np.arange(1, len(rows) + 1) < len(rows)
    for name in columns:
        column = rows[name].combine_chunks()
        one, other = column[:-1], column[1:]
        if pa.types.is_list(column.type):  # Arrow compares no lists
            pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
            equal[:-1] &= np.fromiter((a == b for a, b in pairs), np.bool_, len(one))
            continue
        both_missing = pc.and_(pc.is_null(one), pc.is_null(other))
        same = pc.or_(both_missing, pc.fill_null(pc.equal(one, other), fill_value=False))
        equal[:-1] &= same.to_numpy(zero_copy_only=False).astype(bool)
    return equal


def _newest_before(table: PushedTable, rows: pa.Table, keep_from: datetime) -> pa.Table:
    """The rows without those that a later one of their entity replaces before that time; the rows of 1970 stay."""
    micros = rows[table.timestamp_field].cast(pa.int64()).to_numpy()
    is_old = micros < (keep_from - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    is_replaced = _as_next(rows, [table.join_key]) & np.roll(is_old, -1)
    return rows.filter(pa.array(~is_replaced | (micros == 0)))
