"""Finds the files of a table and their form: CSV, TSV, JSON lines or Parquet, also compressed."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from runtime.errors import InvalidInputError

Form = Literal["csv", "jsonl", "parquet", "empty"]

_SUFFIXES: dict[str, Form] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_OTHER_FORMS = {
    b"\x1f\x8b": "compressed by gzip, but not named so; give it the suffix .gz",
    b"BZh": "compressed by bzip2, but not named so; give it the suffix .bz2",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, but not named so; give it the suffix .zst",
    b"\x04\x22\x4d\x18": "compressed by lz4, but not named so; give it the suffix .lz4",
    b"\xfd7zXZ": "compressed by xz; unpack it, such as with: xz -d",
    b"PK\x03\x04": "a zip file or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"Obj\x01": "an Avro file; convert it to Parquet",
    b"ORC": "an ORC file; convert it to Parquet",
    b"ARROW1": "an Arrow file; convert it to Parquet",
}
"""The first bytes of what cannot be read -> what to do."""
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 50
_DELIMITERS = ",;\t|"
_UNNAMED = "(column"
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_EXCELS_HINT = re.compile(r"sep=(.)\r?\n")  # a line before the names, which Excel writes and reads
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class DataFile(NamedTuple):
    """One file of a table. `delimiter`, `encoding` and `names` (of the columns) are those of a CSV file.

    The form ``empty`` is that of a file without text, such as of a day without an event.
    `is_padded`: its fields have spaces around them, as the names have.
    """

    path: Path
    form: Form
    delimiter: str = ""
    encoding: str = "utf-8"
    names: tuple[str, ...] = ()
    lines_before_names: int = 0
    is_padded: bool = False


def find_files(where: str) -> list[DataFile]:
    """The files of a path, of a folder with all below it, or of a glob such as ``log/*.csv.gz``, sorted by name.

    InvalidInputError when all are empty, when they are of several forms, or when one cannot be a table.
    """
    files = [data_file(path) for path in _paths(where)]
    forms = Counter(file.form for file in files if file.form != "empty")
    if not forms:
        raise InvalidInputError(f"{where}: empty; name the files that have the rows")
    if len(forms) > 1:
        found = " and ".join(f"{count} of {form}" for form, count in forms.items())
        raise InvalidInputError(f"{where}: files of several forms, {found}; name those of one form, such as '*.csv'")
    return files


def open_bytes(path: Path) -> Any:
    """The content as a stream of pyarrow, decompressed by the name's suffix; InvalidInputError if it cannot be read."""
    try:
        return pa.input_stream(str(path), compression="detect")
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _paths(where: str) -> list[Path]:
    path = Path(where)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path)))
    elif path.exists() or not has_magic(where):
        found = [path]
    else:
        found = sorted(Path(name) for name in glob(where, recursive=True) if Path(name).is_file())  # noqa: PTH207 - absolute patterns too
    if not found:
        raise InvalidInputError(f"{where}: no file there")
    if found[0].is_fifo() or found[0].is_char_device():
        raise InvalidInputError(f"{where}: no file but a pipe or a device, which can be read once; write it to a file")
    if not found[0].is_file():
        raise InvalidInputError(f"{where}: no such file, folder or glob")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)  # Spark's _SUCCESS among them


def data_file(path: Path) -> DataFile:
    """The file with its form: by its suffix, else by its first bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    bare = [suffix for suffix in suffixes if suffix not in _COMPRESSED]
    form = _SUFFIXES.get(bare[-1]) if bare else None
    if form == "parquet" and path.stat().st_size:
        return DataFile(path, "parquet")
    sample = _sample(path)
    if sample.startswith(b"PAR1"):
        return DataFile(path, "parquet")
    for first_bytes, advice in _OTHER_FORMS.items():
        if sample.startswith(first_bytes):
            raise InvalidInputError(f"{path}: {advice}")
    text = sample.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return DataFile(path, "empty")
    if form is None and text.startswith(b"["):
        raise InvalidInputError(f"{path}: one JSON array; write one object a line, such as with: jq -c '.[]'")
    if form == "jsonl" or (form is None and text.startswith(b"{")):
        return DataFile(path, "jsonl")
    return _csv_file(path, sample)


def _sample(path: Path) -> bytes:
    try:
        with open_bytes(path) as stream:
            return bytes(stream.read(_SAMPLE_BYTES))
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None


def _csv_file(path: Path, sample: bytes) -> DataFile:
    encoding = _BYTE_ORDER_MARKS.get(sample[:2], "utf-8")
    if b"\0" in sample and encoding == "utf-8":
        raise InvalidInputError(f"{path}: not a text; readable are CSV, TSV, JSON lines and Parquet")
    text = _decoded(path, sample, encoding)
    if "::" in text.partition("\n")[0]:
        raise InvalidInputError(f"{path}: fields with '::' between; write one character between, such as a comma")
    hint = _EXCELS_HINT.match(text)
    text = text[hint.end() :] if hint else text
    delimiter = hint[1] if hint else _delimiter(text)
    written = _records(text, delimiter)[0]
    names = _names(written)
    _check_header(path, names)
    is_padded = any(name[:1] == " " for name in written[1:])
    return DataFile(path, "csv", delimiter, encoding, names, 1 if hint else 0, is_padded)


def _decoded(path: Path, sample: bytes, encoding: str) -> str:
    try:
        text = sample.decode(encoding, "strict" if len(sample) < _SAMPLE_BYTES else "ignore")
    except UnicodeDecodeError as error:
        byte = sample[error.start]
        raise InvalidInputError(
            f"{path}: byte {error.start} is 0x{byte:02x}, which is not UTF-8; convert the file, such as with: "
            f"iconv -f latin1 -t utf-8 {path.name}"
        ) from None
    return text.removeprefix("\ufeff").lstrip("\r\n")


def _delimiter(text: str) -> str:
    """The character that cuts most records into as many fields as the header has; a comma where none does."""

    def fit(delimiter: str) -> tuple[float, int]:
        widths = [len(record) for record in _records(text, delimiter)]
        same = sum(width == widths[0] for width in widths) / len(widths) if widths else 0.0
        return (round(same, 1) if widths and widths[0] > 1 else 0.0, widths[0] if widths else 0)

    return max(_DELIMITERS, key=fit)


def _records(text: str, delimiter: str) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    try:
        for record in csv.reader(io.StringIO(text), delimiter=delimiter):
            if record:
                found.append(record)
            if len(found) == _SAMPLE_RECORDS:
                break
    except csv.Error:
        pass
    return found or [[text.partition("\n")[0]]]


def _names(written: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns. A column without a name is called by its place, where another one has a name."""
    names = [name.strip() for name in written]
    if not any(name and not _NUMBER.fullmatch(name) for name in names):
        return tuple(names)
    return tuple(name or f"{_UNNAMED} {place})" for place, name in enumerate(names, 1))


def is_unnamed(name: str) -> bool:
    """Whether a column has no name in the file: the index that pandas writes, or what follows a last delimiter."""
    return name.startswith((_UNNAMED, "__index_level_", "Unnamed: "))


def _check_header(path: Path, names: Sequence[str]) -> None:
    if data := [name for name in names if not name or _NUMBER.fullmatch(name)]:
        what = f"{data[0]!r} is no name" if data[0] else "one has no name"
        raise InvalidInputError(f"{path}: the first line must name the columns, but {what}; put a line of names first")
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInputError(
            f"{path}: the column {doubled[0]!r} stands more than once in the first line; rename one"
        )
