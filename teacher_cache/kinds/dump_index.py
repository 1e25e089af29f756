"""The logits of Parquet files in memory, to be found by the values of their key columns.

A value of a key column has a code, a row's codes make one number, and rows are sorted by it: what is found is exact.
Shapes: N rows, B rows asked for, K key columns, n elements of a vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from runtime.errors import first_line
from runtime.folder import open_parquet

_BATCH_ROWS = 1 << 16
_MOST_NUMBERS = 2**63


class DumpError(ValueError):
    """Files that cannot be used; `faults` has each with its key of graft.toml."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(faults))


class Columns(NamedTuple):
    """What is read of every file: key columns with their types, and columns of one number and of vectors.

    Each of the latter with the key of graft.toml that names it.
    """

    keys: Mapping[str, str]
    numbers: Mapping[str, str]
    vectors: Mapping[str, str]


class DumpIndex:
    """All rows of the files. Of rows with equal keys the last one holds: of the last file, in the order given.

    `rows`: those that can be found. `repeated`: others with equal keys; `differing`: those of them that say something
    else. `unusable`: rows without a key, or whose numbers are missing or not finite. `widths`: of the vectors.
    DumpError with all faults; MemoryError never, up to `max_rows`.
    """

    def __init__(self, files: Sequence[Path], columns: Columns, max_rows: int) -> None:
        self._columns = columns
        try:
            self._build(_opened(files, columns, max_rows))
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            if isinstance(error, DumpError):
                raise
            shown = ", ".join(str(path) for path in files)
            told = f"one of {shown} cannot be read to its end: {type(error).__name__}: {first_line(error)}"
            raise DumpError([f"teacher.dump.path: {told}; deliver it anew"]) from error

    def _build(self, opened: Sequence[tuple[Path, Any]]) -> None:
        self.widths = _widths(opened, self._columns)
        value_NX = np.concatenate([np.empty((0, self._width), np.float32), *self._read(opened)])
        usable_N: NDArray[np.bool_] = np.asarray(np.isfinite(value_NX).all(axis=1))
        self._codes: dict[str, dict[Any, int]] = {}
        codes = []
        for name, kind in self._columns.keys.items():
            code_N, self._codes[name] = _coded(opened, name, kind)
            usable_N &= code_N >= 0
            codes.append(code_N)
        self.unusable = int((~usable_N).sum())
        self._sort([code_N[usable_N] for code_N in codes], value_NX[usable_N])

    def find(self, keys: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The numbers and vectors of B rows, side by side in the order of the columns; NaN of rows not here."""
        size = len(next(iter(keys.values())))
        number_B, known_B = np.zeros(size, np.int64), np.ones(size, bool)
        for name, codes in self._codes.items():
            code_B = np.array([codes.get(value, -1) for value in keys[name].tolist()], np.int64)
            known_B &= code_B >= 0
            number_B = number_B * max(1, len(codes)) + code_B
        found_BX = np.full((size, self._value_NX.shape[1]), np.nan, np.float32)
        place_B = np.searchsorted(self._number_N, number_B)
        known_B &= place_B < len(self._number_N)
        known_B[known_B] = self._number_N[place_B[known_B]] == number_B[known_B]
        found_BX[known_B] = self._value_NX[place_B[known_B]]
        return found_BX

    @property
    def _width(self) -> int:
        return len(self._columns.numbers) + sum(self.widths.values())

    def _read(self, opened: Sequence[tuple[Path, Any]]) -> Iterator[NDArray[np.float32]]:
        """The numbers and vectors of all rows, NaN where they are missing or beyond float32."""
        columns = [*self._columns.numbers, *self._columns.vectors]
        for _, file in opened:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                parts = [_numbers(batch[name]).reshape(-1, 1) for name in self._columns.numbers]
                parts += [_vectors(batch[name], width) for name, width in self.widths.items()]
                empty = np.empty((len(batch), 0), np.float32)  # a check may ask for the keys alone
                with np.errstate(over="ignore", invalid="ignore"):
                    yield np.concatenate([empty, *(part.astype(np.float32) for part in parts)], axis=1)

    def _sort(self, codes: Sequence[NDArray[np.int32]], value_NX: NDArray[np.float32]) -> None:
        sizes = [max(1, len(of)) for of in self._codes.values()]
        if np.prod(sizes, dtype=object) >= _MOST_NUMBERS:
            shown = ", ".join(f"{name} {len(of):,}" for name, of in self._codes.items())
            raise DumpError([f"teacher.dump.keys: the columns have too many values together: {shown}; leave one out"])
        number_N = np.zeros(len(value_NX), np.int64)
        for code_N, size in zip(codes, sizes, strict=True):
            number_N = number_N * size + code_N
        order_N = np.argsort(number_N, kind="stable")
        number_N, value_NX = number_N[order_N], value_NX[order_N]
        is_last_N = np.append(number_N[1:] != number_N[:-1], True)[: len(number_N)]
        self.differing = int((value_NX[1:] != value_NX[:-1]).any(axis=1)[~is_last_N[:-1]].sum())
        self._number_N, self._value_NX = number_N[is_last_N], value_NX[is_last_N]
        self.rows = len(self._number_N)
        self.repeated = len(number_N) - self.rows


def _coded(opened: Sequence[tuple[Path, Any]], name: str, kind: str) -> tuple[NDArray[np.int32], dict[Any, int]]:
    """The code of each row's value in a key column, -1 where there is none; and the code of each value."""
    target = pa.int64() if kind == "int" else pa.large_string()
    chunks = []
    for path, file in opened:
        try:
            chunks += file.read(columns=[name])[name].cast(target).chunks
        except pa.ArrowInvalid as error:
            raise DumpError([f"teacher.dump.keys.{name}: {path}: {first_line(error)}"]) from error
    encoded = pa.chunked_array(chunks, target).dictionary_encode()
    parts = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    return np.concatenate([np.empty(0, np.int32), *parts]), {value: code for code, value in enumerate(values)}


def _opened(files: Sequence[Path], columns: Columns, max_rows: int) -> list[tuple[Path, Any]]:
    """The files, with their columns checked."""
    opened, faults, rows = [], list[str](), 0
    for path in files:
        try:
            file = open_parquet(path)
        except (OSError, pa.ArrowException) as error:
            faults.append(f"teacher.dump.path: {path} is no Parquet file: {first_line(error)}")
            continue
        faults += _column_faults(path, file.schema_arrow, columns)
        rows += file.metadata.num_rows
        opened.append((path, file))
    if rows > max_rows:
        faults.append(
            f"teacher.dump.max_rows: the files have {rows:,} rows, allowed are {max_rows:,}; set it to as many "
            "as memory holds, or deliver fewer rows"
        )
    if faults:
        raise DumpError(faults)
    return opened


def _column_faults(path: Path, schema: Any, columns: Columns) -> Iterator[str]:
    types = pa.types
    own = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
    for name, kind in columns.keys.items():
        fits = types.is_integer if kind == "int" else _is_text
        yield from _type_fault(f"teacher.dump.keys.{name}: {path}", name, own, fits, kind)
    for name, key in columns.numbers.items():
        yield from _type_fault(f"{key}: {path}", name, own, _is_number, "a number")
    for name, key in columns.vectors.items():
        yield from _type_fault(f"{key}: {path}", name, own, _is_vector, "a list of floats")


def _type_fault(where: str, name: str, own: Mapping[str, Any], fits: Any, allowed: str) -> Iterator[str]:
    if name not in own:
        yield f"{where} has no column {name!r}, it has {', '.join(own)}"
    elif not fits(own[name]):
        yield f"{where}: column {name!r} is of type {own[name]}, must be {allowed}"


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_vector(kind: Any) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _widths(opened: Sequence[tuple[Path, Any]], columns: Columns) -> dict[str, int]:
    """The widths of the vectors, as the first row that has one tells."""
    widths: dict[str, int] = {}
    faults = []
    for name, key in columns.vectors.items():
        lengths = (
            length
            for _, file in opened
            for batch in file.iter_batches(1_024, columns=[name])
            for length in pc.list_value_length(batch[name]).drop_null().to_pylist()
        )
        widths[name] = next(lengths, 0)
        if not widths[name]:
            faults.append(f"{key}: no row of the files has a vector {name!r}, which would tell how many numbers it has")
    if faults:
        raise DumpError(faults)
    return widths


def _numbers(column: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values  # a null is NaN


def _vectors(column: Any, width: int) -> NDArray[Any]:
    """[B, n]; a row that is null or has another number of elements is NaN."""
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    fits_B = lengths == width
    found = np.full((len(column), width), np.nan)
    flat = column.filter(pa.array(fits_B)).flatten().cast(pa.float64(), safe=False)
    found[fits_B] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return found
