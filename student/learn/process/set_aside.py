"""Examples that the learner could not learn, kept where a person finds them: a line of JSON each.

    VERSIONS/set_aside.jsonl      the newest ones
    VERSIONS/set_aside.1.jsonl    those before, once there are many

A restart finds the same ones again and adds none twice.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import Counter

from runtime.folder import writing
from stream.positions import Placed

SET_ASIDE = Counter(
    "graft_student_set_aside_examples_total",
    "Examples that cannot be learnt, kept in set_aside.jsonl",
)

_log = logging.getLogger(__name__)

_FILE, _OLDER_FILE = "set_aside.jsonl", "set_aside.1.jsonl"
_MOST_LINES = 10_000  # of a file: about 4 MB


class Rejected(NamedTuple):
    """A record of the examples topic that is not learnt, and why."""

    record: Placed
    reason: str


class SetAside:
    """Adds to the files in `folder`, which its one writer has claimed."""

    def __init__(self, folder: Path, most_lines: int = _MOST_LINES) -> None:
        self._folder = folder
        self._path = folder / _FILE
        self._most_lines = most_lines
        newest = list(_places_in(self._path))
        self._lines = len(newest)
        self._known = {*newest, *_places_in(folder / _OLDER_FILE)}

    def add(self, rejected: Sequence[Rejected]) -> None:
        """Count and log examples that are not learnt, and keep those that are not kept yet."""
        first, reason = rejected[0]
        SET_ASIDE.inc(len(rejected))
        _log.error(
            "not learnt: examples=%d, the first one at partition=%d offset=%d: %s; %s lists them",
            len(rejected),
            first.partition,
            first.offset,
            reason,
            self._path,
            extra={"partition": first.partition, "offset": first.offset},
        )
        self._write([_line(each) for each in rejected if _place_of(each.record) not in self._known])
        self._known.update(_place_of(each.record) for each in rejected)

    def _write(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        with writing(self._folder):
            if self._lines + len(lines) > self._most_lines and self._path.exists():
                self._path.replace(self._folder / _OLDER_FILE)
                self._lines = 0
            with self._path.open("a+b") as file:
                file.write(_end_of_torn_line(file) + "".join(lines).encode())
        self._lines += len(lines)


_Place = tuple[int, int, str]


def _place_of(record: Placed) -> _Place:
    """The impression's id is part of it: a topic that is made anew uses its offsets again."""
    return record.partition, record.offset, record.example.impression_id


def _line(rejected: Rejected) -> str:
    partition, offset, impression_id = _place_of(rejected.record)
    fields = {
        "partition": partition,
        "offset": offset,
        "impression_id": impression_id,
        "reason": rejected.reason,
        "set_aside_at_ms": time.time_ns() // 1_000_000,
    }
    return json.dumps(fields) + "\n"


def _places_in(path: Path) -> Iterator[_Place]:
    """Of every whole line; a kill may have cut the last one."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
            yield fields["partition"], fields["offset"], fields["impression_id"]
        except (ValueError, TypeError, KeyError):
            continue


def _end_of_torn_line(file: Any) -> bytes:
    """What ends the file's last line, if a kill has cut it."""
    size = file.seek(0, 2)
    if not size:
        return b""
    file.seek(size - 1)
    return b"" if file.read(1) == b"\n" else b"\n"
