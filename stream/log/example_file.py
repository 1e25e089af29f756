"""One file of the example log: a run of one partition's examples of one day, as Parquet.

A run is unbroken: the file named `p3-100-199.parquet` has every example of partition 3 from offset 100 to 199. Offsets
without an example (transaction markers, aborted ones) belong to the run that ends after them.

A run in which an example stands for more than itself (`Example.weight`) has a column of weights; one with drawn rows
(`Example.sampled`) says of these, as JSON text, why they are there. A run of which the teacher's cache had logits has
these, and the generation that made them: null where it had none.

Ids, context and features are JSON text, so that 7 and "7", 1 and 1.0, and every float come back as they were.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import InvalidInputError
from runtime.folder import open_parquet, replacing
from stream.events import Example, Sampled
from stream.log.examples import ExampleRecord
from stream.positions import ArchivedLogits

DAYS = "day=*"
"""The folders of a log that hold its files."""

_Decoded = TypeVar("_Decoded")
_NAME = re.compile(r"p(\d+)-(\d+)-(\d+)\.parquet")
_LABEL = "label_"
_BATCH_ROWS = 4_096
_LAST_SECOND = 253_402_300_799  # the end of year 9999, which also takes all later event times
_JSON = {"user_id", "item_id", "context", "features"}
_COLUMNS = {
    "partition": pa.int32(),
    "offset": pa.int64(),
    "impression_id": pa.string(),
    "user_id": pa.string(),
    "item_id": pa.string(),
    "event_time_ms": pa.int64(),
    "context": pa.string(),
    "spec_id": pa.string(),
    "features": pa.string(),
}
_FIELDS = tuple(_COLUMNS)[2:]  # of an example, its labels aside
_WEIGHT, _SAMPLED = "weight", "sampled"
_LOGITS, _GENERATION = "teacher_logits", "teacher_generation"
_FIELDS_SET = {*_FIELDS, "labels", _WEIGHT, _SAMPLED}  # one for all: a set each would cost a fifth of the reading


class ExampleFile(NamedTuple):
    """A run's partition, its first and last offset, and its file."""

    partition: int
    first: int
    last: int
    path: Path

    def __str__(self) -> str:
        return f"{self.path} (partition {self.partition}, offsets {self.first} to {self.last})"


def list_files(folder: Path) -> list[ExampleFile]:
    """The files of a log, by partition and offset; InvalidInputError for a Parquet file with another name."""
    return sorted(_named(path) for path in folder.glob(f"{DAYS}/*.parquet"))


def runs(records: Iterable[ExampleRecord]) -> Iterator[list[ExampleRecord]]:
    """Cut one partition's records, in their order, wherever the impression's day (UTC) or the tasks change."""
    for _, run in groupby(records, lambda r: (_day(r.example.event_time_ms), tuple(r.example.labels))):
        yield list(run)


def write(folder: Path, first: int, run: Sequence[ExampleRecord]) -> ExampleFile:
    """Write a run that covers the offsets from `first` on; when this returns it is on disk, whole and under its name.

    A kill on the way leaves a partial file that no reader sees. GraftError when the disk refuses.
    """
    partition, last = run[-1].partition, run[-1].offset
    path = folder / f"day={_day(run[0].example.event_time_ms)}" / f"p{partition}-{first}-{last}.parquet"
    with replacing(path) as file:
        pq.write_table(_table(run), file, compression="zstd", write_page_checksum=True)
    return ExampleFile(partition, first, last, path)


def read(file: ExampleFile, offset: int, spec_id: str | None = None) -> Iterator[list[ExampleRecord]]:
    """The file's records from `offset` on, in their order, a few thousand at a time.

    InvalidInputError, with file and offsets, when it is damaged, is not what its name says, or has an example of
    another feature spec than `spec_id`.
    """
    reached = file.first - 1
    for records in _batches(file, _records):
        reached = _checked(file, records, reached, spec_id)
        yield records if records[0].offset >= offset else [r for r in records if r.offset >= offset]
    if reached != file.last:
        raise InvalidInputError(f"{file}: ends at offset {reached}")


def read_columns(file: ExampleFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All of the file's rows with these columns, which are to have partition and offset, a few thousand at a time.

    InvalidInputError as `read`.
    """
    reached = file.first - 1
    for batch, first, last in _batches(file, lambda batch: (batch, *_ends(file, batch)), names):
        if first <= reached:
            raise InvalidInputError(f"{file}: offset {first} comes after offset {reached}")
        reached = last
        yield batch
    if reached != file.last:
        raise InvalidInputError(f"{file}: ends at offset {reached}")


def _ends(file: ExampleFile, batch: pa.RecordBatch) -> tuple[int, int]:
    """The batch's first and last offset; ValueError when its rows are not the file's, in their order."""
    offsets = batch["offset"].to_numpy()
    partitions = batch["partition"].to_numpy()
    if (np.diff(offsets) <= 0).any() or (partitions != file.partition).any():
        raise ValueError("its rows are not in the order of their offsets, or of another partition")
    return int(offsets[0]), int(offsets[-1])


def _named(path: Path) -> ExampleFile:
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise InvalidInputError(f"{path}: a file of an example log is named p<partition>-<first>-<last>.parquet")
    partition, first, last = map(int, name.groups())
    return ExampleFile(partition, first, last, path)


def _day(event_time_ms: int) -> str:
    return datetime.fromtimestamp(min(event_time_ms // 1000, _LAST_SECOND), UTC).date().isoformat()


def _table(run: Sequence[ExampleRecord]) -> pa.Table:
    tasks = list(run[0].example.labels)
    fields = [*_COLUMNS.items(), *((_LABEL + task, pa.float64()) for task in tasks)]
    columns = zip(*(_row(record, tasks) for record in run), strict=True)
    arrays = [pa.array(column, kind) for column, (_, kind) in zip(columns, fields, strict=True)]
    table = pa.table(arrays, schema=pa.schema(fields))
    weights = [record.example.weight for record in run]
    sampled = [record.example.sampled and record.example.sampled.model_dump_json() for record in run]
    if set(weights) != {1}:
        table = table.append_column(_WEIGHT, pa.array(weights, pa.int32()))
    if any(sampled):
        table = table.append_column(_SAMPLED, pa.array(sampled, pa.string()))
    if any(record.archived for record in run):
        generations, logits = zip(*(record.archived or (None, None) for record in run), strict=True)
        table = table.append_column(_GENERATION, pa.array(generations, pa.string()))
        table = table.append_column(_LOGITS, pa.array(logits, pa.list_(pa.float32())))
    return table


def _row(record: ExampleRecord, tasks: Sequence[str]) -> list[Any]:
    example = record.example
    return [
        record.partition,
        record.offset,
        example.impression_id,
        json.dumps(example.user_id),
        json.dumps(example.item_id),
        example.event_time_ms,
        json.dumps(example.context),
        example.spec_id,
        json.dumps(example.features),
        *(example.labels[task] for task in tasks),
    ]


def _batches(
    file: ExampleFile, decode: Callable[[pa.RecordBatch], _Decoded], names: Sequence[str] | None = None
) -> Iterator[_Decoded]:
    try:
        with open_parquet(file.path, check_pages=True) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names):
                yield decode(batch)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"{file}: damaged, or no file of an example log: {error}") from error


def _records(batch: pa.RecordBatch) -> list[ExampleRecord]:
    """A batch's rows as records; not validated again, since graft wrote them and pages have checksums."""
    columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    fields = {name: columns[name] if name not in _JSON else _parsed(columns[name]) for name in _FIELDS}
    fields["labels"] = _labels(columns, batch.num_rows)
    fields[_WEIGHT] = columns.get(_WEIGHT) or [1] * batch.num_rows
    sampled = columns.get(_SAMPLED) or [None] * batch.num_rows
    fields[_SAMPLED] = [text and Sampled.model_validate_json(text) for text in sampled]
    examples = (
        Example.model_construct(_FIELDS_SET, **dict(zip(fields, row, strict=True)))
        for row in zip(*fields.values(), strict=True)
    )
    archived = _archived(columns, batch.num_rows)
    return list(map(ExampleRecord, columns["partition"], columns["offset"], examples, archived))


def _labels(columns: Mapping[str, list[Any]], rows: int) -> list[dict[str, float | None]]:
    tasks = [name.removeprefix(_LABEL) for name in columns if name.startswith(_LABEL)]
    if not tasks:
        return [{} for _ in range(rows)]
    return [dict(zip(tasks, row, strict=True)) for row in zip(*(columns[_LABEL + t] for t in tasks), strict=True)]


def _archived(columns: Mapping[str, list[Any]], rows: int) -> list[ArchivedLogits | None]:
    if _GENERATION not in columns:
        return [None] * rows
    pairs = zip(columns[_GENERATION], columns[_LOGITS], strict=True)
    return [None if logits is None else ArchivedLogits(generation, logits) for generation, logits in pairs]


def _parsed(texts: Sequence[str]) -> list[Any]:
    """All texts in one call of the parser."""
    values: list[Any] = json.loads(f"[{','.join(texts)}]")
    return values


def _checked(file: ExampleFile, records: Sequence[ExampleRecord], reached: int, spec_id: str | None) -> int:
    """The last offset of `records`, which go on after `reached`; InvalidInputError when they are not the file's."""
    for partition, offset, example, _ in records:
        if partition != file.partition or not reached < offset <= file.last:
            raise InvalidInputError(f"{file}: partition {partition} offset {offset} comes after offset {reached}")
        if spec_id is not None and example.spec_id != spec_id:
            raise InvalidInputError(
                f"{file}: offset {offset} was logged with feature spec {example.spec_id}, must be {spec_id}; "
                "learn from it with the project and features that wrote it"
            )
        reached = offset
    return reached
