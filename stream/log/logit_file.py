"""One file of the example log's logits: what learners used for the examples of one partition, as Parquet.

    LOG/_logits/p3-100-199-5000-8000.parquet    partition 3; offsets 100 to 199 of the topic `used-logits`, which are of
                                                examples with the offsets 5000 to 8000

Tools that read the log as a folder of Parquet files pass over names with _. Rows stand in the order of their examples'
offsets, and those of one example in the order of the topic.
"""

import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import InvalidInputError
from runtime.folder import open_parquet, replacing
from stream.log.used_logits import UsedRecord

FOLDER = "_logits"
"""The folder of a log that holds these files."""

_NAME = re.compile(r"p(\d+)-(\d+)-(\d+)-(\d+)-(\d+)\.parquet")
_BATCH_ROWS = 4_096
_COLUMNS = {
    "offset": pa.int64(),
    "impression": pa.uint32(),
    "learner": pa.string(),
    "generation": pa.string(),
    "logits": pa.list_(pa.float32()),
}
"""Files of earlier releases have more columns, which are not read."""


class LogitFile(NamedTuple):
    """A file, its partition, its first and last offset in the topic, the lowest and highest offset of its examples."""

    partition: int
    first: int
    last: int
    lowest: int
    highest: int
    path: Path

    def __str__(self) -> str:
        return f"{self.path} (partition {self.partition}, offsets {self.first} to {self.last} of the used logits)"


class LogitRow(NamedTuple):
    """What a learner used for the example at `offset`; `impression` is the mark of its impression.

    `logits`: None for a miss.
    """

    offset: int
    impression: int
    learner: str
    generation: str
    logits: list[float] | None


def list_logit_files(folder: Path) -> list[LogitFile]:
    """The files of a log's logits, by partition and offset; InvalidInputError for a Parquet file with another name."""
    return sorted(_named(path) for path in (folder / FOLDER).glob("*.parquet"))


def write_logits(folder: Path, first: int, records: Sequence[UsedRecord]) -> LogitFile | None:
    """Write one partition's records, which cover the topic's offsets from `first` on; None when they have no row.

    When this returns the file is on disk, whole and under its name. GraftError when the disk refuses.
    """
    rows = sorted((row for record in records for row in _rows(record)), key=attrgetter("offset"))  # a stable sort
    if not rows:
        return None
    partition, last = records[-1].partition, records[-1].offset
    place = partition, first, last, rows[0].offset, rows[-1].offset
    path = folder / FOLDER / f"p{'-'.join(map(str, place))}.parquet"
    with replacing(path) as file:
        pq.write_table(_table(rows), file, compression="zstd", write_page_checksum=True)
    return LogitFile(*place, path)


def read_logits(file: LogitFile, offset: int) -> Iterator[list[LogitRow]]:
    """The rows of examples from `offset` on, in their order, a few thousand at a time.

    InvalidInputError, with the file, when it is damaged or has examples beyond those that its name says.
    """
    reached = file.lowest
    for rows in _batches(file):
        for row in rows:
            if not reached <= row.offset <= file.highest:
                raise InvalidInputError(f"{file}: example {row.offset} comes after {reached}; its name is another's")
            reached = row.offset
        yield rows if rows[0].offset >= offset else [row for row in rows if row.offset >= offset]
    if reached != file.highest:
        raise InvalidInputError(f"{file}: ends at example {reached}")


def _named(path: Path) -> LogitFile:
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise InvalidInputError(
            f"{path}: a file of an example log's logits is named p<partition>-<first>-<last>-<lowest>-<highest>.parquet"
        )
    partition, first, last, lowest, highest = map(int, name.groups())
    return LogitFile(partition, first, last, lowest, highest, path)


def _rows(record: UsedRecord) -> Iterator[LogitRow]:
    used = record.used
    for offset, impression, logits in zip(used.offsets, used.impressions, used.logits, strict=True):
        yield LogitRow(offset, impression, used.learner, used.generation, logits)


def _table(rows: Sequence[LogitRow]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _COLUMNS.values(), strict=True)]
    return pa.table(arrays, schema=pa.schema(_COLUMNS.items()))


def _batches(file: LogitFile) -> Iterator[list[LogitRow]]:
    try:
        with open_parquet(file.path, check_pages=True) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS)):
                columns = [batch.column(name).to_pylist() for name in _COLUMNS]
                yield [LogitRow(*row) for row in zip(*columns, strict=True)]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInputError(f"{file}: damaged, or no file of an example log's logits: {error}") from error
