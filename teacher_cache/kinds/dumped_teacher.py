"""A teacher that is a dump: logits that the source's team has computed and delivers as Parquet, late and in part.

Its inputs are the dump's key columns. The domain map feeds them, so the target's ids become the source's by a lookup.
Shapes: N rows of the files, B rows asked for, T teacher tasks, n elements of a vector.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prometheus_client import Gauge

from runtime.errors import ConfigurationError, first_line
from runtime.folder import file_sha256, open_parquet
from teacher_cache.config import DumpConfig, TeacherTask, TeacherVector
from teacher_cache.teacher import TensorSpec, name_faults

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
    """All rows of the files, in memory.

    A value of a key column has a code, a row's codes make one number, and rows are sorted by it: what is found is
    exact. Of rows with equal keys the last one holds: of the last file, in the order given.

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


_LOG = logging.getLogger(__name__)
_ROWS = Gauge("graft_teacher_dump_rows", "Rows of the teacher's dump that can be found.")
_LOOK_SECONDS = 10.0
_TYPES = {"int": np.dtype(np.int64), "str": np.dtype(object)}
_SHOWN_DIGITS = 12

_Stamp = tuple[str, int, int, int, int]


class DumpedTeacher:
    """See `Teacher`. A relative path starts at `folder`. ConfigurationError with all faults.

    Files that come into a folder later are taken up within ten seconds, at the next call. While one of them is no good,
    which is told, all stays as it was before.
    """

    def __init__(
        self, config: DumpConfig, folder: Path, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()
    ) -> None:
        self._config, self._path = config, folder / config.path
        self._is_folder = self._path.is_dir()
        self._tasks, self._vectors = tuple(tasks), tuple(vectors)
        self._columns = Columns(
            config.keys,
            {task.output: f"teacher.tasks.{i}.output" for i, task in enumerate(tasks)},
            {vector.output: f"teacher.vectors.{i}.output" for i, vector in enumerate(vectors)},
        )
        faults = _double_faults(self._columns, self._tasks, self._vectors) + list(name_faults(tasks, vectors))
        self._digests: dict[_Stamp, str] = {}
        try:
            self._seen = self._look()
            self._index = self._read(self._seen)
        except DumpError as error:
            faults += error.faults
        except OSError as error:
            told = f"{self._path} cannot be read: {error.strerror}"
            faults.append(f"teacher.dump.path: {told}; name a Parquet file or a folder")
        if faults:
            raise ConfigurationError([f"graft.toml: {fault}" for fault in faults])
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self.inputs: Mapping[str, TensorSpec] = {name: TensorSpec(_TYPES[of], 1) for name, of in config.keys.items()}
        of_tasks: dict[str, tuple[int, ...]] = {task.name: () for task in tasks}
        of_vectors = {vector.name: (self._index.widths[vector.output],) for vector in vectors}
        self.outputs: Mapping[str, tuple[int, ...]] = of_tasks | of_vectors

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See `Teacher.score`."""
        self._follow()
        return self._tasks_of(self._index.find(inputs))

    def describe(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """See `Teacher.describe`."""
        self._follow()
        found_BX = self._index.find(inputs)
        logit_BT = self._tasks_of(found_BX)
        found = {task.name: logit_BT[:, t] for t, task in enumerate(self._tasks)}
        at = len(self._columns.numbers)
        places = {}
        for output, width in self._index.widths.items():
            places[output] = slice(at, at + width)
            at += width
        return found | {vector.name: found_BX[:, places[vector.output]] for vector in self._vectors}

    def _tasks_of(self, found_BX: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, T]; two tasks may have one column."""
        place = {output: x for x, output in enumerate(self._columns.numbers)}
        return found_BX[:, [place[task.output] for task in self._tasks]]

    def _follow(self) -> None:
        """Take up what was delivered, replaced or removed since the last look."""
        if not self._is_folder or time.monotonic() < self._look_at:  # another file is another teacher
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        try:
            stamps = self._look()
            if stamps == self._seen:
                return
            self._seen = stamps
            index = self._read(stamps)
        except (DumpError, OSError) as error:
            _LOG.warning("the dump stays as it was, with %d rows: %s", self._index.rows, error)
            return
        if index.widths != self._index.widths:
            _LOG.warning("the dump stays as it was: its vectors have other widths, %s", index.widths)
            return
        self._index = index

    def _look(self) -> tuple[_Stamp, ...]:
        """The files, in the order of their names: name, bytes, times of change, inode."""
        files = [self._path]
        if self._is_folder:
            self._path.stat()  # a folder that is away is not an empty one
            files = sorted(one for one in self._path.glob("*.parquet") if one.name[0] not in "._" and one.is_file())
        told = [(one.name, one.stat()) for one in files]
        return tuple((name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for name, one in told)

    def _read(self, stamps: tuple[_Stamp, ...]) -> DumpIndex:
        files = [self._path / stamp[0] for stamp in stamps] if self._is_folder else [self._path]
        index = DumpIndex(files, self._columns, self._config.max_rows)
        for stamp, file in zip(stamps, files, strict=True):
            if stamp not in self._digests:
                self._digests[stamp] = file_sha256(file)
                _LOG.info("dump file=%s sha256=%s", file, self._digests[stamp][:_SHOWN_DIGITS])
        if changed := sorted(set(stamps).difference(self._look())):  # keys of one may stand beside logits of the other
            told = f"{changed[0][0]} was changed or removed while it was read"
            raise DumpError([f"teacher.dump.path: {told}; deliver under another name, then rename"])
        _LOG.info(
            "dump model=%s files=%d rows=%d repeated=%d of which say something else=%d unusable=%d",
            self._config.model,
            len(files),
            index.rows,
            index.repeated,
            index.differing,
            index.unusable,
        )
        _ROWS.set(index.rows)
        return index


def _double_faults(columns: Columns, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector]) -> list[str]:
    """Columns that stand for two things."""
    faults = []
    for i, output in enumerate(task.output for task in tasks):
        if output in columns.keys:
            faults.append(f"teacher.tasks.{i}.output: {output!r} is a key of the dump; name a column with logits")
    for i, vector in enumerate(vectors):
        if vector.output in columns.keys or vector.output in columns.numbers:
            faults.append(f"teacher.vectors.{i}.output: {vector.output!r} is a key or a task of the dump")
    return faults
