"""The rows of an example log as teacher requests, column by column: what a backfill reads of it.

Arrow reads, merges and filters the columns; what is left becomes Python values piece by piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic_core import from_json

from runtime.errors import InvalidInputError
from stream.log.example_file import ExampleFile, read_columns
from stream.log.request_columns import RequestColumns, Share

_PIECE_ROWS = 256
"""Rows that are decoded in one piece: whoever waits for Python's lock waits for no more than half a millisecond."""

_JSON = ("user_id", "item_id", "context", "features")
_COLUMNS = [
    "partition",
    "offset",
    "impression_id",
    "user_id",
    "item_id",
    "event_time_ms",
    "context",
    "spec_id",
    "features",
]
"""In the order of RequestColumns."""


class Wanted(NamedTuple):
    """Which rows: before the offsets `ends`, of impressions from `since_ms` on and before `until_ms`, of a share.

    None: any. A partition that `ends` lacks has no rows.
    """

    ends: Mapping[int, int]
    since_ms: int | None = None
    until_ms: int | None = None
    share: Share | None = None

    def has(self, rows: pa.RecordBatch, partition: int) -> NDArray[np.bool_]:
        """Per row whether it is wanted."""
        time_ms_B = rows["event_time_ms"].to_numpy()
        has_B: NDArray[np.bool_] = rows["offset"].to_numpy() < self.ends.get(partition, 0)
        if self.since_ms is not None:
            has_B &= time_ms_B >= self.since_ms
        if self.until_ms is not None:
            has_B &= time_ms_B < self.until_ms
        return has_B if self.share is None else has_B & self.share.has(rows["user_id"])


class TimedBatch(NamedTuple):
    """Rows of one partition, and for each the latest event time of the partition up to it, which never falls."""

    rows: pa.RecordBatch
    latest_ms_B: NDArray[np.int64]

    def cut(self, end: int) -> tuple[pa.RecordBatch, "TimedBatch"]:
        """The rows before `end`, and what is left."""
        return self.rows.slice(0, end), TimedBatch(self.rows.slice(end), self.latest_ms_B[end:])


def timed_batches(files: Sequence[ExampleFile], offset: int, wanted: Wanted) -> Iterator[TimedBatch]:
    """One partition's wanted rows from `offset` on; the latest event time is of all rows.

    InvalidInputError as of `example_file.read`.
    """
    latest_ms = -1
    for file in files:
        if file.last < offset:
            continue
        if file.first >= wanted.ends.get(file.partition, 0):
            return
        for batch in read_columns(file, _COLUMNS):
            rows = batch.slice(int(np.searchsorted(batch["offset"].to_numpy(), offset)))
            if not rows.num_rows:
                continue
            latest_ms_B = np.maximum(np.maximum.accumulate(rows["event_time_ms"].to_numpy()), latest_ms)
            latest_ms = int(latest_ms_B[-1])
            has_B = wanted.has(rows, file.partition)
            if has_B.all():
                yield TimedBatch(rows, latest_ms_B)
            elif has_B.any():
                yield TimedBatch(rows.filter(pa.array(has_B)), latest_ms_B[has_B])


def merged(sources: Sequence[Iterator[TimedBatch]]) -> Iterator[pa.RecordBatch]:
    """The rows of several partitions in the order of `stream.positions`: by the latest event time, then by `sources`.

    So the order of two rows does not depend on those between them, and the shares of a log can be read apart.
    """
    waiting: dict[int, TimedBatch] = {}
    left = dict(enumerate(sources))
    while True:
        for n in left.keys() - waiting.keys():
            if (some := next(left[n], None)) is None:
                del left[n]
            else:
                waiting[n] = some
        if not waiting:
            return
        yield _first_rows(waiting)


def _first_rows(waiting: dict[int, TimedBatch]) -> pa.RecordBatch:
    """Takes all rows out of `waiting` that no later row of any source comes before."""
    end_ms, last = min((int(some.latest_ms_B[-1]), n) for n, some in waiting.items())
    parts, times = [], []
    for n in sorted(waiting):
        latest_ms_B = waiting[n].latest_ms_B
        end = int(np.searchsorted(latest_ms_B, end_ms, side="right" if n <= last else "left"))
        if not end:
            continue
        part, some = waiting.pop(n).cut(end)
        if some.rows.num_rows:
            waiting[n] = some
        parts.append(part)
        times.append(latest_ms_B[:end])
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(times), kind="stable")
    return pa.concat_batches(parts).take(pa.array(order))


def decoded(folder: Path, rows: pa.RecordBatch) -> Iterator[RequestColumns]:
    """The same rows as requests, some hundred at a time; not validated again, since graft wrote them.

    InvalidInputError, with partition and offsets, where a text is not the JSON that graft writes.
    """
    for start in range(0, rows.num_rows, _PIECE_ROWS):
        piece = rows.slice(start, _PIECE_ROWS)
        try:
            yield _decoded(piece)
        except (ValueError, TypeError) as error:
            where = f"partition {piece['partition'][0]}, offsets {piece['offset'][0]} to {piece['offset'][-1]}"
            raise InvalidInputError(f"{folder}: {where}: damaged, or no example log: {error}") from error


def _decoded(piece: pa.RecordBatch) -> RequestColumns:
    columns: list[Any] = [_parsed(piece[name]) if name in _JSON else piece[name].to_pylist() for name in _COLUMNS]
    return RequestColumns(*columns)


def _parsed(texts: pa.Array) -> list[Any]:
    """All texts in one call of the parser; ValueError when they are not as many values."""
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), ",")[0].as_py()
    values: list[Any] = from_json(f"[{joined}]")  # takes half of the time of json.loads, and gives the same values
    if len(values) != len(texts):
        raise ValueError(f"{len(texts)} JSON texts hold {len(values)} values")
    return values
