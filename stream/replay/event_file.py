"""Event files: JSON lines or Parquet, one impression or feedback per row, told apart by ``type``."""

import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from runtime.errors import InvalidInputError
from runtime.folder import open_parquet
from stream.events import Impression

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # noqa: TID251 - its annotation alone

_log = logging.getLogger(__name__)
_READ_BYTES = 1 << 20
_KINDS = ("impression", "feedback")


class FileEvent(NamedTuple):
    """One row: the message's key and bytes. An `unreadable` one keeps its line's bytes.

    `number`: its line, or its row of a Parquet file, from 1 on. `time_ms`: its event time; None where it has no number.
    """

    kind: Literal["impression", "feedback", "unreadable"]
    key: bytes | None
    value: bytes
    number: int
    time_ms: int | None = None


def read_events(path: Path, start: int = 0) -> Iterator[FileEvent]:
    """The rows of a file in their order, without empty lines and without the first `start` of the others.

    The suffix says the format: .parquet, else JSON lines.
    """
    return _parquet(path, start) if path.suffix == ".parquet" else _json_lines(path, start)


def count_events(path: Path) -> int:
    """How many rows `read_events` gives."""
    if path.suffix == ".parquet":
        return int(open_parquet(path).metadata.num_rows)
    with path.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def impressions_of(path: Path) -> Iterator[Impression]:
    """The valid impressions of a file; the others are counted in one warning at the end.

    InvalidInputError when the file has rows and none of them is a valid impression or feedback.
    """
    taken = skipped = 0
    for event in read_events(path):
        try:
            impression = None if event.kind == "feedback" else Impression.model_validate_json(event.value)
        except ValidationError:
            skipped += 1
            continue
        taken += 1
        if impression is not None:
            yield impression
    if skipped and not taken:
        raise InvalidInputError(
            f"{path}: none of its {skipped:,} rows is a valid impression or feedback; "
            f"'graft replay {path} --dry-run' says why"
        )
    if skipped:
        _log.warning("%s: %d rows are no valid impressions or feedback; they were left out", path, skipped)


def _json_lines(path: Path, start: int) -> Iterator[FileEvent]:
    filled = ((number, raw) for number, line in enumerate(_lines(path), 1) if (raw := line.strip()))
    for number, raw in islice(filled, start, None):
        yield _event(_parsed(raw), raw, number)


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines. It is open only while some are read, so who takes a few leaves no file open."""
    position = 0
    while True:
        with path.open("rb") as file:
            file.seek(position)
            lines = file.readlines(_READ_BYTES)
            position = file.tell()
        if not lines:
            return
        yield from lines


def _parquet(path: Path, start: int) -> Iterator[FileEvent]:
    for number, row in enumerate(_parquet_rows(path, start), start + 1):
        present = {name: value for name, value in row.items() if value is not None}
        if isinstance(present.get("context"), dict):
            present["context"] = {k: v for k, v in present["context"].items() if v is not None}
        raw = json.dumps(present, default=str).encode()
        yield _event(json.loads(raw), raw, number)  # as JSON has it: a Parquet time is a text there


def _parquet_rows(path: Path, start: int) -> Iterator[dict[str, Any]]:
    """InvalidInputError for a file that is no Parquet, or has values that Python has not, such as the year 10,000."""
    try:
        file = open_parquet(path)
        groups, passed = _groups_from(file, start)
        for batch in file.iter_batches(batch_size=1_000, row_groups=groups):
            left = batch.slice(min(start - passed, batch.num_rows)) if passed < start else batch
            passed += batch.num_rows - left.num_rows
            yield from left.to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, OverflowError, KeyError, ValueError, OSError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {type(error).__name__}: {error}") from None


def _groups_from(file: "ParquetFile", start: int) -> tuple[list[int], int]:
    """The row groups that do not end before row `start`, and how many rows stand before them."""
    first = passed = 0
    while first < file.num_row_groups and passed + (rows := file.metadata.row_group(first).num_rows) <= start:
        first, passed = first + 1, passed + rows
    return list(range(first, file.num_row_groups)), passed


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _event(row: Any, raw: bytes, number: int) -> FileEvent:
    """A row as its message; `type` says the topic and is not part of it."""
    if not isinstance(row, dict) or row.get("type") not in _KINDS:
        return FileEvent("unreadable", None, raw, number)
    event = {name: value for name, value in row.items() if name != "type"}
    impression_id = event.get("impression_id")
    key = impression_id.encode("utf-8", "replace") if isinstance(impression_id, str) else None
    value = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
    time = event.get("event_time_ms")
    return FileEvent(row["type"], key, value, number, time if type(time) is int else None)
