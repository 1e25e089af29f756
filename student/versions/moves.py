"""The history of the names of versions: every move, one a line, only appended to.

::

    FOLDER/history.jsonl    the newest moves, oldest first
    FOLDER/history-*.jsonl  what became too long, by the time of its last move
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.folder import append_synced, writing
from student.versions.version_folder import VersionError

_LONGEST_BYTES = 4 << 20
"""Of one file: about 15,000 moves."""


class Move(BaseModel):
    """One move of a name, or of the hold on the champion."""

    model_config = ConfigDict(frozen=True)

    at_ms: int
    name: str
    to: str | None = Field(description="the reference that it stands for from now on; null: the name is removed")
    was: str | None
    by: str = Field(description="who moved it: the learner, or a user")
    why: str
    numbers: dict[str, float] = Field(default={}, description="that decided it")
    held: bool = Field(description="whether the champion is held from now on")
    back: bool = Field(default=False, description="whether it is a rollback")


class Moves:
    """The history in `folder`. Only who moves names alone may write it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "history.jsonl"

    def mend(self) -> None:
        """Remove what a kill has left after the last whole line."""
        with writing(self._path.parent):
            if self._path.exists():
                _cut_last_line(self._path)

    def backwards(self) -> Iterator[Move]:
        """The moves of the last two files, newest first; only those that are asked for are read."""
        older = sorted(self._path.parent.glob("history-*.jsonl"))[-1:]
        return (move for path in (self._path, *older) for move in _moves_backwards(path))

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


def now_ms() -> int:
    """By the wall clock."""
    return time.time_ns() // 1_000_000


def _moves_backwards(path: Path) -> Iterator[Move]:
    """The whole lines of a file of the history. VersionError, with the line, when one is no move."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what comes after the last newline was cut short
    except FileNotFoundError:
        return
    except OSError as error:
        raise VersionError(f"{path}: cannot be read: {error.strerror}") from None
    for number in range(len(lines), 0, -1):
        try:
            yield Move.model_validate_json(lines[number - 1])
        except ValidationError:
            raise VersionError(f"{path}, line {number}: no move of a name; restore the line or remove it") from None


def _cut_last_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        if (whole := content.rfind(b"\n") + 1) < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
