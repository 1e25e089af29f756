"""The logits of an example log, joined with its examples by their place: what a learner used, or that it had none.

An example has what the learner used that wrote of it first; of that learner's records the last holds, since it says how
the example was learnt in the end. Another generation's logits are passed over.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

from stream.events import impression_mark
from stream.log.logit_file import LogitFile, LogitRow, list_logit_files, read_logits
from stream.positions import Placed

_log = logging.getLogger(__name__)


class LoggedLogit(NamedTuple):
    """What a learner had of the teacher for one example: None for a miss."""

    logits: list[float] | None


class LoggedLogits:
    """What an example log in `folder` knows now of logits of `generation`; nothing where it has none.

    With `fill_misses` an example that its learner had no logit for has that of another learner, if there is one, and is
    not known else. It holds a few thousand rows of each file that reaches over an example: of as many files as learners
    have learnt it, or have learnt it again.
    """

    def __init__(self, folder: Path, generation: str, *, fill_misses: bool = False) -> None:
        self.folder = folder
        self.generation = generation
        self._fill_misses = fill_misses
        files = list_logit_files(folder)
        _warn_of_gaps(files)
        self._partitions = {p: _Partition(group) for p, group in groupby(files, lambda file: file.partition)}
        self._told: set[str] = set()

    def of(self, records: Sequence[Placed]) -> list[LoggedLogit | None]:
        """What was used for each of these examples; None where the log does not say.

        A partition's examples must be asked for in the order of their offsets.
        """
        return [self._of_one(record) for record in records]

    def _of_one(self, record: Placed) -> LoggedLogit | None:
        partition = self._partitions.get(record.partition)
        rows = partition.take(record.offset) if partition else []
        if not rows:
            return None
        mark = impression_mark(record.example.impression_id)
        last: dict[str, LogitRow] = {}  # by learner, the one that wrote first first
        for row in rows:
            if row.impression != mark:
                self._warn(
                    "logits of other examples",
                    f"those at partition {record.partition} offset {record.offset} are of another impression; was the "
                    "topic made anew since?",
                )
            elif row.generation != self.generation:
                self._warn(row.generation, f"logits of generation {row.generation}, where {self.generation} is wanted")
            else:
                last[row.learner] = row
        for row in last.values():
            if row.logits is not None or not self._fill_misses:
                return LoggedLogit(row.logits)
        return None

    def _warn(self, what: str, found: str) -> None:
        """Once for each thing that is passed over."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s has %s: it is as if it had none of these", self.folder, found)


class _Partition:
    """The rows of one partition, given out example by example."""

    def __init__(self, files: Iterable[LogitFile]) -> None:
        self._waiting = deque(sorted(files, key=lambda file: (file.lowest, file.first)))
        self._open: list[_Rows] = []

    def take(self, offset: int) -> list[LogitRow]:
        """The rows of the example at `offset`, in the order of the topic; those before it are passed over."""
        while self._waiting and self._waiting[0].lowest <= offset:
            file = self._waiting.popleft()
            if file.highest >= offset:
                self._open = sorted([*self._open, _Rows(file, offset)], key=lambda rows: rows.first)
        found = [row for rows in self._open for row in rows.take(offset)]
        if any(rows.has_ended for rows in self._open):
            self._open = [rows for rows in self._open if not rows.has_ended]
        return found


class _Rows:
    """The rows of one file from `offset` on."""

    def __init__(self, file: LogitFile, offset: int) -> None:
        self.first = file.first
        self.has_ended = False
        self._batches = read_logits(file, offset)
        self._rows: list[LogitRow] = []
        self._next = 0

    def take(self, offset: int) -> Iterator[LogitRow]:
        while (row := self._peek()) is not None and row.offset <= offset:
            self._next += 1
            if row.offset == offset:
                yield row

    def _peek(self) -> LogitRow | None:
        while self._next >= len(self._rows):
            rows = next(self._batches, None)
            if rows is None:
                self.has_ended = True
                return None
            self._rows, self._next = rows, 0
        return self._rows[self._next]


def _warn_of_gaps(files: Iterable[LogitFile]) -> None:
    for before, after in pairwise(files):
        if before.partition == after.partition and after.first > before.last + 1:
            _log.warning(
                "used logits of offsets %d to %d are missing between %s and %s: it is as if the log had none of these",
                before.last + 1,
                after.first - 1,
                before,
                after,
                extra={"partition": before.partition, "offset": before.last + 1},
            )
