"""The history of the names of versions: every move, one a line, only appended to.

::

    FOLDER/history.jsonl    the newest moves, oldest first
    FOLDER/history-*.jsonl  what became too long, by the time of its last move
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.folder import append_synced, writing
from student.versions.manifest import YEAR_10000_MS
from student.versions.version_folder import VersionError

_log = logging.getLogger(__name__)

REFERENCE = r"(?P<version>v[0-9]{6,18})(?P<control>-control)?"
"""A version, or its control arm."""

_Reference = Annotated[str, Field(pattern=f"^{REFERENCE}$")]

_LONGEST_BYTES = 4 << 20
"""Of one file: about 15,000 moves."""


class Move(BaseModel):
    """One move of a name, or of the hold on the champion."""

    model_config = ConfigDict(frozen=True)

    at_ms: int = Field(ge=0, lt=YEAR_10000_MS)
    name: str
    to: _Reference | None = Field(description="the reference that it stands for from now on; null: the name is removed")
    was: _Reference | None
    by: str = Field(description="who moved it: the learner, or a user")
    why: str
    numbers: dict[str, float] = Field(default={}, description="that decided it")
    held: bool = Field(description="whether the champion is held from now on")
    back: bool = Field(default=False, description="whether it is a rollback")


class Moves:
    """The history in `folder`. Only who moves names alone may write it. A line that is no move ends nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "history.jsonl"
        self._told: set[tuple[Path, int]] = set()
        """The damaged lines that the log knows of."""

    def mend(self) -> None:
        """Remove what a kill has left after the last whole line."""
        with writing(self._path.parent):
            if self._path.exists():
                _cut_last_line(self._path)

    def backwards(self) -> Iterator[Move]:
        """The moves of the last two files, newest first; only those that are asked for are read.

        VersionError when a file cannot be read. A line that is no move is passed over: the log tells of it once.
        """
        older = sorted(self._path.parent.glob("history-*.jsonl"))[-1:]
        lines = ((path, *line) for path in (self._path, *older) for line in _lines_backwards(path))
        return (move for line in lines if (move := self._move_of(*line)))

    def append(self, move: Move) -> None:
        """Add a move."""
        with writing(self._path.parent):
            if self._path.exists() and self._path.stat().st_size > _LONGEST_BYTES:
                self._path.rename(self._path.with_name(f"history-{now_ms()}.jsonl"))
            append_synced(self._path, move.model_dump_json().encode() + b"\n")

    def add_missing(self, name: str, now: str | None, holding: Move | None) -> None:
        """Add how a name came to stand for something else than its last move says, if it does.

        `holding`: the move that holds the champion, which a kill may have kept out of the history; who else wrote the
        name's file is not known.
        """
        known = next((move.to for move in self.backwards() if move.name == name), None)
        if known == now:
            return
        if holding and (holding.name, holding.was, holding.to) == (name, known, now):
            self.append(holding)
            return
        why = "a move that was cut short, or its file was written by hand"
        self.append(Move(at_ms=now_ms(), name=name, to=now, was=known, by="unknown", why=why, held=holding is not None))

    def _move_of(self, path: Path, number: int, line: bytes) -> Move | None:
        try:
            return Move.model_validate_json(line)
        except ValidationError:
            if (path, number) not in self._told:
                self._told.add((path, number))
                _log.warning("%s, line %d: no move of a name, passed over; restore the line or remove it", path, number)
            return None


def now_ms() -> int:
    """By the wall clock."""
    return time.time_ns() // 1_000_000


def _lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file with their numbers, the last one first. VersionError when it cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what comes after the last newline was cut short
    except FileNotFoundError:
        return
    except OSError as error:
        raise VersionError(f"{path}: cannot be read: {error.strerror}") from None
    for number in range(len(lines), 0, -1):
        yield number, lines[number - 1]


def _cut_last_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        if (whole := content.rfind(b"\n") + 1) < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
