"""Writes a log as an event file in the documented form: impressions, each followed by its feedback, in time order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graft.init.labels import Label
from graft.init.log import Log

_ROWS = 100_000


def write_events(path: Path, log: Log, labels: list[Label]) -> tuple[int, int]:
    """Write the Parquet file; how many impressions and feedback events it has.

    Feedback has the time of its impression: a log with one time a row says no more. A binary label is written where it
    is 1: without feedback it is 0. Rows without an impression id get e000000000 and following, in time order.
    """
    impressions = feedback = 0
    writer = None
    try:
        for batch in _batches(log, labels):
            writer = writer or pq.ParquetWriter(path, batch.schema)
            writer.write_table(batch)
            shown = pc.sum(pc.equal(batch["type"], "impression")).as_py()
            impressions, feedback = impressions + shown, feedback + batch.num_rows - shown
    finally:
        if writer is not None:
            writer.close()
    return impressions, feedback


def _batches(log: Log, labels: list[Label]) -> Iterator[pa.Table]:
    for start in range(0, log.rows.num_rows, _ROWS):
        rows = log.rows.slice(start, _ROWS).combine_chunks()
        ids = rows["impression"] if "impression" in rows.column_names else _impression_ids(start, rows.num_rows)
        known = {"impression_id": ids, "event_time_ms": rows["time_ms"]}
        shown = {"type": ["impression"] * rows.num_rows, **known, "user_id": rows["user"], "item_id": rows["item"]}
        if context := [name for name in rows.column_names if name.startswith("context.")]:
            shown["context"] = _struct(rows, context)
        parts = [pa.table(shown)]
        order = [np.arange(rows.num_rows) * (len(labels) + 1)]
        for number, label in enumerate(labels, 1):
            values = rows[f"label.{label.name}"]
            told = pc.equal(values, 1.0) if label.kind == "binary" else pc.is_valid(values)
            at = np.flatnonzero(pc.fill_null(told, False).to_numpy())
            answer = {name: values_of.take(at) for name, values_of in known.items()}
            answer |= {"type": ["feedback"] * len(at), "task": [label.name] * len(at), "value": values.take(at)}
            parts.append(pa.table(answer))
            order.append(order[0][at] + number)
        joined = pa.concat_tables(parts, promote_options="default")
        yield joined.take(np.argsort(np.concatenate(order), kind="stable"))


def _impression_ids(start: int, rows: int) -> Any:
    numbers = pa.array(np.arange(start, start + rows)).cast(pa.string())
    texts = pc.binary_join_element_wise("e", pc.utf8_lpad(numbers, 9, "0"), "")
    return pa.chunked_array([texts])


def _struct(rows: pa.Table, names: list[str]) -> Any:
    columns = [rows[name].combine_chunks() for name in names]
    columns = [column.chunk(0) if isinstance(column, pa.ChunkedArray) else column for column in columns]
    return pa.StructArray.from_arrays(columns, [name.removeprefix("context.") for name in names])
