"""Names of versions: which one each stands for, who moved it when and why, and whether a person holds the champion.

::

    FOLDER/champion              the version that serves: one line
    FOLDER/names/NAME            the same of each name that a user gave
    FOLDER/names/held            there while the champion is held: the move that did it
    FOLDER/names/history.jsonl   every move, oldest first; only appended to
    FOLDER/names/history-*.jsonl what became too long, by the time of its last move

`candidate` is the newest version and `control` the control arm of the champion: nobody moves these. The learner and
people move names one at a time. A name is written before the history tells of it; the next move finds what the history
does not know, after a kill in between or when somebody wrote the file, and adds it.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.folder import append_synced, make_folder, remove_partial_files, replacing, writing
from student.versions.version_folder import VersionError

CHAMPION = "champion"
CANDIDATE = "candidate"
CONTROL = "control"

_REFERENCE = re.compile(r"(?P<version>v\d{6,18})(?P<control>-control)?")
_NUMBER = re.compile(r"[0-9]{1,18}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FOLDER, _HISTORY, _HELD, _LOCK = "names", "history.jsonl", "held", ".lock"
_KEPT_NAMES = (CANDIDATE, CONTROL, _HELD)

_LONGEST_HISTORY = 4 << 20
"""Bytes of one file of the history: about 15,000 moves."""


class Reference:
    """An arm of a version, as names and requests give it: ``v000012``, or ``v000012-control`` for its control.

    VersionError where `text` is none.
    """

    def __init__(self, text: str) -> None:
        found = _REFERENCE.fullmatch(text)
        if not found:
            raise VersionError(f"a version is v and its number, such as v000012 or v000012-control, got {text!r}")
        self.text = text
        self.version = found["version"]
        self.is_control = found["control"] is not None

    def __str__(self) -> str:
        return self.text


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


class Names:
    """The names in the registry `folder`, whose newest version `newest` tells."""

    def __init__(self, folder: Path, newest: Callable[[], str | None]) -> None:
        self._folder = folder
        self._newest = newest
        self._held = folder / _FOLDER / _HELD
        self._history = folder / _FOLDER / _HISTORY

    def of(self, name: str) -> str | None:
        """The reference that a name stands for; None where there is no such name. VersionError when it is damaged."""
        if name == CANDIDATE:
            return self._newest()
        if name == CONTROL:
            champion = self.of(CHAMPION)
            return champion and f"{Reference(champion).version}-control"
        path = self._path(name)
        text = read_line(path)
        if text is not None and not _REFERENCE.fullmatch(text):
            raise VersionError(
                f"{path} must hold a version such as v000001, found {text!r}; 'graft student promote VERSION' writes "
                "the champion anew, or restart the learner ('graft student train'): it promotes the newest whole one"
            )
        return text

    def legible(self, name: str) -> str | None:
        """As `of`, but None too for a damaged one."""
        try:
            return self.of(name)
        except VersionError:
            return None

    def all(self) -> dict[str, str]:
        """Every name with its reference: champion, candidate, control, then those of users; no damaged ones."""
        given = sorted(path.name for path in (self._folder / _FOLDER).glob("*") if _NAME.fullmatch(path.name))
        names = dict.fromkeys([CHAMPION, CANDIDATE, CONTROL, *given])
        return {name: reference for name in names if name != _HELD and (reference := self.legible(name))}

    def resolve(self, text: str) -> Reference:
        """Of a name, ``v000012``, ``v000012-control`` or ``12``. VersionError, with the names that there are."""
        if _NUMBER.fullmatch(text):
            return Reference(f"v{int(text):06d}")
        if _REFERENCE.fullmatch(text):
            return Reference(text)
        found = self.of(text) if _NAME.fullmatch(text) and text != _HELD else None
        if found is None:
            known = ", ".join(self.all()) or "none yet"
            raise VersionError(f"no version has the name {text!r}; names: {known}; a number such as v000012 does too")
        return Reference(found)

    def held(self) -> Move | None:
        """The move that holds the champion; None while the learner may move it. A damaged file holds it too."""
        try:
            return Move.model_validate_json(self._held.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            why = (
                f"{self._held} cannot be read; 'graft student hold' writes it anew, 'graft student release' removes it"
            )
            champion = self.legible(CHAMPION)
            return Move(at_ms=0, name=CHAMPION, to=champion, was=champion, by="unknown", why=why, held=True)

    def move(  # noqa: PLR0913 - by keyword: what stands in the history
        self,
        name: str,
        to: str | None,
        *,
        by: str,
        why: str,
        numbers: Mapping[str, float] | None = None,
        hold: bool | None = None,
        unless_held: bool = False,
        back: bool = False,
    ) -> Move | None:
        """Let `name` stand for `to`, or for nothing; `hold` holds or releases the champion, None leaves that as it is.

        With `unless_held` nothing moves, and the result is None, while the champion is held. VersionError for a name
        that nobody may give.
        """
        _check_name(name)
        with self._locked():
            was_held = self._held.exists()
            if unless_held and was_held:
                return None
            was = self.legible(name)
            self._add_unknown(name, was, was_held)
            move = Move(
                at_ms=_now_ms(),
                name=name,
                to=to,
                was=was,
                by=by,
                why=why,
                numbers=dict(numbers or {}),
                held=was_held if hold is None else hold,
                back=back,
            )
            self._make(move, hold)
            self._append(move)
            return move

    def history(self) -> list[Move]:
        """The moves of the last two files of the history, oldest first: at least the last 15,000."""
        return [*self._backwards()][::-1]

    def before(self, champion: str) -> str | None:
        """The champion before `champion` by the history, rollbacks aside: so a second rollback goes further back."""
        moves = [m for m in self.history() if m.name == CHAMPION and m.to != m.was and not m.back]
        return next((m.was for m in reversed(moves) if m.to == champion), None)

    def clear(self) -> None:
        """Remove all names and their history."""
        with self._locked():
            (self._folder / CHAMPION).unlink(missing_ok=True)
            for path in self._history.parent.iterdir():
                path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / name if name == CHAMPION else self._folder / _FOLDER / name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the one who moves names; the history ends with a whole line."""
        with writing(self._folder):
            make_folder(self._history.parent)
            lock = (self._history.parent / _LOCK).open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_partial_files(self._history.parent)
            with writing(self._folder):
                _cut_last_line(self._history)
            yield

    def _add_unknown(self, name: str, now: str | None, held: bool) -> None:  # noqa: FBT001 - a state
        """Add to the history how the name came to stand for something else than the history's last move of it says."""
        known = next((move.to for move in self._backwards() if move.name == name), None)
        if known != now:
            why = "a move that was cut short, or its file was written by hand"
            self._append(Move(at_ms=_now_ms(), name=name, to=now, was=known, by="unknown", why=why, held=held))

    def _backwards(self) -> Iterator[Move]:
        """The moves of the last two files of the history, newest first; only those that are asked for are read."""
        older = sorted(self._history.parent.glob("history-*.jsonl"))[-1:]
        return (move for path in (self._history, *older) for move in _moves_backwards(path))

    def _append(self, move: Move) -> None:
        with writing(self._folder):
            if self._history.exists() and self._history.stat().st_size > _LONGEST_HISTORY:
                self._history.rename(self._history.with_name(f"history-{_now_ms()}.jsonl"))
            append_synced(self._history, move.model_dump_json().encode() + b"\n")

    def _make(self, move: Move, hold: bool | None) -> None:  # noqa: FBT001 - as `move` has it
        """Write what a move says: the hold first, so that no name moves without it."""
        if hold:
            write_line(self._held, move.model_dump_json())
        if move.to is not None:
            write_line(self._path(move.name), move.to)
        with writing(self._folder):
            if move.to is None:
                self._path(move.name).unlink(missing_ok=True)
            if hold is False:
                self._held.unlink(missing_ok=True)


def read_line(path: Path) -> str | None:
    """What stands in a file of one line; None where there is no file. VersionError when it cannot be read."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VersionError(f"{path}: cannot be read: {error.strerror}") from None


def write_line(path: Path, line: str) -> None:
    """Replace a file of one line, atomically."""
    with replacing(path) as file:
        file.write(line.encode() + b"\n")


def _check_name(name: str) -> None:
    """VersionError for a name that nobody may give."""
    if not _NAME.fullmatch(name) or _REFERENCE.fullmatch(name) or name in _KEPT_NAMES:
        raise VersionError(
            f"a name is a lower-case letter, then up to 63 lower-case letters, digits, '-' and '_', and none of "
            f"{', '.join(_KEPT_NAMES)}, v000012; got {name!r}"
        )


def _moves_backwards(path: Path) -> Iterator[Move]:
    """The whole lines of a file of the history. VersionError, with the line, when one is no move."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what comes after the last newline was cut short
    except FileNotFoundError:
        return
    for number in range(len(lines), 0, -1):
        try:
            yield Move.model_validate_json(lines[number - 1])
        except ValidationError:
            raise VersionError(f"{path}, line {number}: no move of a name; restore the line or remove it") from None


def _cut_last_line(path: Path) -> None:
    """Remove what a kill has left after the last newline."""
    if path.exists():
        with path.open("rb+") as file:
            content = file.read()
            if (whole := content.rfind(b"\n") + 1) < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
