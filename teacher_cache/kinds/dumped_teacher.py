"""A teacher that is a dump: logits that the source's team has computed and delivers as Parquet, late and in part.

Its inputs are the dump's key columns. The domain map feeds them, so the target's ids become the source's by a lookup.
Shapes: B rows, T teacher tasks.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from runtime.errors import ConfigurationError
from runtime.folder import file_sha256
from teacher_cache.config import DumpConfig, TeacherTask, TeacherVector
from teacher_cache.kinds.dump_index import Columns, DumpError, DumpIndex
from teacher_cache.teacher import TensorSpec, name_faults

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
        faults = _column_faults(self._columns, self._tasks, self._vectors) + list(name_faults(tasks, vectors))
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


def _column_faults(columns: Columns, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector]) -> list[str]:
    """Columns that stand for two things."""
    faults = []
    for i, output in enumerate(task.output for task in tasks):
        if output in columns.keys:
            faults.append(f"teacher.tasks.{i}.output: {output!r} is a key of the dump; name a column with logits")
    for i, vector in enumerate(vectors):
        if vector.output in columns.keys or vector.output in columns.numbers:
            faults.append(f"teacher.vectors.{i}.output: {vector.output!r} is a key or a task of the dump")
    return faults
