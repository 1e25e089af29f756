"""Reads a table as record batches, with bounded memory. A field of a nested object is the column ``object.field``.

CSV is read as text: what a column holds is decided over the whole table (columns.py), not by its first rows.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json

from graft.init.files import DataFile, find_files, open_bytes
from runtime.errors import InvalidInputError, first_line
from runtime.folder import open_parquet

_FEWEST = 3
"""Whole lines within fields that look like rows; a text of several lines may have one by chance."""


class OpenQuotes:
    """Counts the whole lines within fields of one file, and how many of them have as many delimiters as a row."""

    def __init__(self, delimiter: str, fields: int) -> None:
        self._delimiter, self._fields = delimiter, fields
        self._lines = self._like_rows = 0
        self._first = ""

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the texts of another batch."""
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            for text in values.filter(pc.match_substring(values, "\n")).to_pylist():
                self.add_text(text, f"{name!r}")

    def add_text(self, text: str, place: str = "a line") -> None:
        """Take a field with line breaks, or a record that has another number of fields than the header."""
        for line in text.splitlines()[1:-1]:
            self._lines += 1
            if line.count(self._delimiter) == self._fields - 1:
                self._like_rows += 1
                self._first = self._first or f"{place}: {text[:40].splitlines()[0]!r}"

    def check(self, where: str) -> int:
        """How many of these lines may be rows: 0 if most do not look so. InvalidInputError where it is no chance."""
        if 2 * self._like_rows <= self._lines:
            return 0
        if self._like_rows >= _FEWEST:
            raise InvalidInputError(
                f"{where}: {self._like_rows:,} rows lie within quotes that are not closed, the first in {self._first}; "
                "write a quote within a field twice and the field in quotes, or remove the quotes, such as with: "
                "tr -d '\"'"
            )
        return self._like_rows


FILE_DATE = "(date in the file's name)"
"""A column of files that all have a date in their name, as log-2026-01-31.csv or day=2026-01-31/part-0.parquet."""

_MISSING = ("", "NULL", "null", "NaN", "nan", "None", "\\N", "NA", "<NA>", "N/A", "n/a", "#N/A")
"""What programs write where there is nothing: databases, pandas, R, Excel."""

_CHUNK_BYTES = 8 << 20
_KEPT_BYTES = 64 << 20  # a table up to this size is read from its files once
_ROWS = 65_536
_DATE = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")
_LONG_INTEGER = re.compile(rb"\d{18}")


class Table:
    """The rows of `where`: a file, a folder or a glob. May be read more than once.

    `left_out` counts, after a reading, the lines that are no rows, by reason.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.files: Sequence[DataFile] = find_files(where)
        self.left_out: Counter[str] = Counter()
        self._kept: list[pa.RecordBatch] | None = None
        self._dates = [_date_of(file.path) for file in self.files]
        self._has_dates = all(self._dates)

    @property
    def disk_bytes(self) -> int:
        """The size of its files on disk."""
        return sum(file.path.stat().st_size for file in self.files)

    def told_left_out(self) -> str:
        """What was left out, as the end of a sentence; "" if nothing was."""
        told = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"; left out: {told}" if told else ""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the files; InvalidInputError names a file that cannot be read."""
        return self._read() if self._kept is None else iter(self._kept)

    def _read(self) -> Iterator[pa.RecordBatch]:
        self.left_out.clear()
        kept: list[pa.RecordBatch] = []
        size = 0
        for batch in map(self._flat, _gathered(self._of_files())):
            size += batch.nbytes
            kept.append(batch)
            if size > _KEPT_BYTES:
                kept.clear()
            yield batch
        if size <= _KEPT_BYTES:
            self._kept = kept

    def _flat(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        flat = _flat(batch)
        doubled = [name for name, count in Counter(flat.schema.names).items() if count > 1]
        if doubled:
            raise InvalidInputError(f"{self.where}: the column {doubled[0]!r} stands more than once; rename one")
        return flat

    def _of_files(self) -> Iterator[pa.RecordBatch]:
        for file, date in zip(self.files, self._dates, strict=True):
            try:
                for batch in self._of(file):
                    yield _with_date(batch, date) if self._has_dates and date else batch
            except (pa.ArrowException, OSError, UnicodeError) as error:
                raise InvalidInputError(f"{file.path}: cannot be read: {_advice(error)}") from None

    def _of(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        match file.form:
            case "parquet":
                parquet = open_parquet(file.path)
                yield from parquet.iter_batches(batch_size=_ROWS, use_threads=parquet.metadata.num_rows > _ROWS)
            case "csv":
                yield from self._csv(file)
            case "jsonl":
                yield from self._json_lines(file)
            case "empty":
                self.left_out["files that are empty"] += 1

    def _csv(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        quotes = OpenQuotes(file.delimiter, len(file.names))

        def skip(row: Any) -> str:
            quotes.add_text(row.text or "")
            reason = f"lines with another number of fields than the header's {row.expected_columns}"
            self.left_out[reason] += 1 + (row.text or "").count("\n")
            return "skip"

        with open_bytes(file.path) as stream:
            for batch in pa_csv.open_csv(
                stream,
                pa_csv.ReadOptions(
                    use_threads=False,  # else the rows that are skipped are counted in another thread
                    skip_rows=file.lines_before_names,
                    encoding=file.encoding,
                    block_size=_CHUNK_BYTES,
                    column_names=file.names,
                    skip_rows_after_names=1,
                ),
                pa_csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True, invalid_row_handler=skip),
                pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(file.names, pa.string()), strings_can_be_null=True, null_values=_MISSING
                ),
            ):
                quotes.add(batch)
                yield _trimmed(batch) if file.is_padded else batch
        if rows := quotes.check(str(file.path)):
            self.left_out["lines within a field in quotes that look like rows: a quote may not be closed"] += rows

    def _json_lines(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        with open_bytes(file.path) as stream:
            rest = b""
            while chunk := stream.read(_CHUNK_BYTES):
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield from self._objects(lines)
            yield from self._objects(rest)

    def _objects(self, lines: bytes) -> Iterator[pa.RecordBatch]:
        """One JSON object a line; pyarrow reads what has one type a column, Python the rest."""
        lines = lines.removeprefix(b"\xef\xbb\xbf").strip()
        if not lines:
            return
        if not _LONG_INTEGER.search(lines):  # pyarrow makes a double of an integer beyond 64 bits
            try:
                yield from _json_table(lines).to_batches()
            except pa.ArrowException:
                pass
            else:
                return
        rows = [row for line in lines.splitlines() if (row := self._object(line)) is not None]
        if rows:
            names = dict.fromkeys(name for row in rows for name in row)
            yield pa.RecordBatch.from_arrays([_array([row.get(name) for row in rows]) for name in names], list(names))

    def _object(self, line: bytes) -> dict[str, Any] | None:
        if not line.strip():
            return None
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            self.left_out["lines that are no JSON object"] += 1
            return None
        return _flat_object(row)


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches that follow each other with the same columns, joined up to a size: many small files cost little."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if waiting and not batch.schema.equals(waiting[0].schema):
            yield from _one(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= _ROWS or size >= _CHUNK_BYTES:
            yield from _one(waiting)
            waiting, rows, size = [], 0, 0
    yield from _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(batches) < 2:
        return batches
    bare = [batch.replace_schema_metadata(None) for batch in batches]  # pandas' own differ from file to file
    gathered: list[pa.RecordBatch] = pa.Table.from_batches(bare).combine_chunks().to_batches()
    return gathered


def _trimmed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Texts without the spaces around them; null where nothing is left."""
    trimmed = [pc.utf8_trim_whitespace(values) for values in batch.columns]
    missing = pa.array(_MISSING)
    columns = [pc.if_else(pc.is_in(values, value_set=missing), None, values) for values in trimmed]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def column(batch: pa.RecordBatch, name: str) -> Any:
    """The column of that name; nulls where this file has none."""
    at = batch.schema.get_field_index(name)
    return pa.nulls(len(batch)) if at < 0 else batch.column(at)


def _json_table(lines: bytes) -> pa.Table:
    """The objects by pyarrow; texts that it takes for times stay texts, as they are written: they may be ids."""
    options = pa_json.ReadOptions(block_size=len(lines) + 1, use_threads=False)
    table = pa_json.read_json(io.BytesIO(lines), read_options=options)
    written = pa.schema([field.with_type(_as_written(field.type)) for field in table.schema])
    if written.equals(table.schema):
        return table
    return pa_json.read_json(io.BytesIO(lines), options, pa_json.ParseOptions(explicit_schema=written))


def _as_written(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_written(field.type)) for field in kind])
    return pa.list_(_as_written(kind.value_type)) if pa.types.is_list(kind) else kind


def _flat_object(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat_object(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _array(values: list[Any]) -> pa.Array:
    """The values as one Arrow array; as texts where they have no type in common."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    flat = table.combine_chunks().to_batches()
    return flat[0] if flat else pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], table.schema)


def _date_of(path: Path) -> datetime | None:
    for part in (path.name, path.parent.name):
        for year, month, day in _DATE.findall(part):
            try:
                return datetime(int(year), int(month), int(day), tzinfo=UTC)
            except ValueError:
                continue
    return None


def _with_date(batch: pa.RecordBatch, date: datetime) -> pa.RecordBatch:
    dates = pa.array([date] * len(batch), pa.timestamp("s", tz="UTC"))
    return pa.RecordBatch.from_arrays([*batch.columns, dates], [*batch.schema.names, FILE_DATE])


def _advice(error: BaseException) -> str:
    text = first_line(error)
    if "straddling" in text:
        return f"{text}; most often a quote is not closed: write it twice, or remove the quotes"
    return f"{text}; convert it to UTF-8, such as with iconv" if "UTF8" in text else text
