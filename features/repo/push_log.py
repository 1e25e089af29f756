"""The push log: every row of running aggregates and profiles that was pushed, and from when on impressions read it.

Beside the batch table of each pushed view, `data/NAME.parquet`, lies a folder `data/NAME.pushed` with

    000001.arrows, 000002.arrows, ...    Arrow streams, one for each run of a stream process, a batch for each push

`graft features collect` brings them into the table, which Feast reads (features/repo/batch_tables.py). Their columns
are the table's, and `shown_ms` in place of its time: the event time of the newest impression that was read before the
push. An entity that has left has a row without values. docs/decisions/012-features-offline.md has the reasons.
"""

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prometheus_client import Counter

from features.config import AggregateConfig, ProfileConfig
from features.spec import Entity, EntityId, IdType, usable_id
from runtime.errors import GraftError
from runtime.folder import make_folder, writing
from runtime.outage import Outage


class PushedValues(Protocol):
    """Absolute values of entities, for the push sources of their tables."""

    def has(self, entity: Entity, entity_id: EntityId) -> bool:
        """Whether there is something to know of an entity; one without has no row in the online store."""
        ...

    def rows(
        self, push_source: str, entity: Entity, ids: Iterable[EntityId]
    ) -> Mapping[str, Sequence[float | Sequence[float]]]:
        """One list per column of the push source, with a number or a list of numbers for each of `ids`."""
        ...


UNLOGGED = Counter("graft_features_unlogged_rows", "Pushed rows that the disk did not take: the push log lacks them")

OWNER = b"graft_owner"
"""In a schema's metadata: the name of the join state that made the rows."""
SHOWN_MS = "shown_ms"

_LARGEST_BYTES = 64 * 1024 * 1024  # of a segment, so that `collect` can remove old ones of a process that runs on


class PushedTable(NamedTuple):
    """The batch table of a pushed view. `columns` are its features' types."""

    path: Path
    join_key: str
    id_type: IdType
    columns: dict[str, pa.DataType]
    timestamp_field: str

    @property
    def log_folder(self) -> Path:
        """Where the pushes of the view are logged."""
        return self.path.with_suffix(".pushed")

    def schema(self, *time: pa.Field, owner: str) -> pa.Schema:
        """The key, the features, and a time."""
        key = pa.field(self.join_key, pa.string() if self.id_type == "str" else pa.int64())
        return pa.schema([key, *map(pa.field, self.columns, self.columns.values()), *time], metadata={OWNER: owner})


class PushLog:
    """Appends pushes. What it has appended survives a kill of the process, but for the last seconds no power cut.

    A disk that takes no writes does not stop the stream: the rows are counted as unlogged, and the log goes on with
    the first push after it.
    """

    def __init__(self, tables: Mapping[str, PushedTable], configs: Sequence[AggregateConfig | ProfileConfig]) -> None:
        self._tables = tables
        self._configs = [config for config in configs if config.push_source in tables]
        self._segments: dict[str, _Segment] = {}
        self._disk = Outage("disk", "the rows that are pushed now are not logged", stops_work=False)
        self._owner = ""

    def begin(self, owner: str) -> None:
        """Log the pushes of this join state from now on."""
        self._owner = owner

    def append(self, values: PushedValues, changed: Mapping[Entity, Sequence[EntityId]], shown_ms: int) -> None:
        """Log a push of these entities, to which impressions up to `shown_ms` were blind."""
        for config in self._configs:
            ids = changed.get(config.entity, ())
            if ids:
                batch = _batch(self._tables[config.push_source], config, values, ids, shown_ms, self._owner)
                if batch.num_rows:
                    self._write(config.push_source, batch)

    def close(self) -> None:
        """End what was begun, so that all of it can be collected and removed."""
        for push_source in list(self._segments):
            self._end(push_source)

    def _write(self, push_source: str, batch: pa.RecordBatch) -> None:
        folder = self._tables[push_source].log_folder
        try:
            with writing(folder):
                segment = self._segments.get(push_source) or _Segment(folder, batch.schema)
                self._segments[push_source] = segment
                segment.write(batch)
        except GraftError as error:
            UNLOGGED.inc(batch.num_rows)
            self._disk.failed(error)
            self._end(push_source)  # what was written in part ends it
        else:
            self._disk.ended()
            if segment.bytes > _LARGEST_BYTES:
                self._end(push_source)

    def _end(self, push_source: str) -> None:
        if segment := self._segments.pop(push_source, None):
            segment.close()


class _Segment:
    """A file of its own, which is locked while it is written; it comes into sight locked, and with its schema."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        make_folder(folder)
        hidden = folder / f".{os.getpid()}.partial"
        self._file: IO[bytes] = hidden.open("wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._file.flush()
        _link(hidden, folder)
        hidden.unlink()

    @property
    def bytes(self) -> int:
        """Its size."""
        return self._file.tell()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch, which outlives this process from then on."""
        self._writer.write_batch(batch)
        self._file.flush()

    def close(self) -> None:
        """End it, also on a disk that takes no writes; its lock ends with it."""
        for one in (self._writer, self._file):
            with suppress(OSError):
                one.close()


def segments(folder: Path) -> list[Path]:
    """The segments of a log, oldest first."""
    return sorted((path for path in folder.glob("*.arrows") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def read_segment(path: Path) -> tuple[str, list[pa.RecordBatch]]:
    """Whose a segment is, and its whole batches: a killed writer leaves the last one in part. "" for no segment."""
    batches: list[pa.RecordBatch] = []
    owner = ""
    with path.open("rb") as file, suppress(pa.ArrowException, OSError):
        reader = pa.ipc.open_stream(file)
        owner = (reader.schema.metadata or {}).get(OWNER, b"").decode()
        for batch in reader:
            batches.append(batch)  # noqa: PERF402 - those before the broken one are kept
    return owner, batches


def _link(hidden: Path, folder: Path) -> None:
    """Give a file the number after the last one; another process may take that at the same time."""
    number = int(found[-1].stem) if (found := segments(folder)) else 0
    while True:
        number += 1
        try:
            (folder / f"{number:06}.arrows").hardlink_to(hidden)
        except FileExistsError:
            continue
        return


def _batch(
    table: PushedTable,
    config: AggregateConfig | ProfileConfig,
    values: PushedValues,
    ids: Sequence[EntityId],
    shown_ms: int,
    owner: str,
) -> pa.RecordBatch:
    """One push of one source; ids that cannot be join keys are left out, as they are of the push."""
    keys = {entity_id: key for entity_id in ids if (key := usable_id(entity_id, table.id_type)) is not None}
    is_gone = np.asarray([not values.has(config.entity, entity_id) for entity_id in keys], bool)
    schema = table.schema(pa.field(SHOWN_MS, pa.int64()), owner=owner)
    arrays = [pa.array(keys.values(), schema.field(0).type)]
    for column, pushed in values.rows(config.push_source, config.entity, keys).items():
        to_array = _lists if pa.types.is_list(table.columns[column]) else _numbers
        arrays.append(to_array(pushed, is_gone, table.columns[column]))
    arrays.append(pa.array(np.full(len(keys), shown_ms), pa.int64()))
    return pa.record_batch(arrays, schema=schema)


def _numbers(values: Sequence[Any], is_gone: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The values as the online store has them; one that a reader takes for a miss there is null."""
    with np.errstate(over="ignore"):
        stored = np.asarray(values, np.float64).astype(kind.to_pandas_dtype())
    return pa.array(stored, kind, mask=is_gone | ~np.isfinite(stored))


def _lists(values: Sequence[Any], is_gone: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The same of lists of numbers."""
    stored = [None if gone else list(value) for value, gone in zip(values, is_gone, strict=True)]
    return pa.array(stored, kind)


def is_written(path: Path) -> bool:
    """Whether a process still writes a segment."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
