"""Names of versions: which one each stands for, who moved it when and why, and whether a person holds the champion.

::

    FOLDER/champion              the version that serves: one line
    FOLDER/names/NAME            the same of each name that a user gave
    FOLDER/names/held            there while the champion is held: the move that did it
    FOLDER/names/history.jsonl   the newest moves, oldest first; only appended to
    FOLDER/names/history-*.jsonl what became too long, by the time of its last move

`candidate` is the newest version and `control` the control arm of the champion: nobody moves these. The learner and
people move names one at a time. A name is written before the history tells of it; the next move finds what the history
does not know, after a kill in between or when somebody wrote the file, and adds it.
"""

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import GraftError
from runtime.folder import append_synced, make_folder, remove_partial_files, replacing, sync_file, writing
from student.versions.manifest import YEAR_10000_MS
from student.versions.version_folder import VersionError

_log = logging.getLogger(__name__)

REFERENCE = r"(?P<version>v[0-9]{6,18})(?P<control>-control)?"
"""A version, or its control arm."""

_Reference = Annotated[str, Field(pattern=f"^{REFERENCE}$")]

_LONGEST_BYTES = 4 << 20
"""Of one file: about 15,000 moves."""

CHAMPION = "champion"
CANDIDATE = "candidate"
CONTROL = "control"

HELD = "held"
"""No name: the file beside them that is there while the champion is held."""

_REFERENCE = re.compile(REFERENCE)
_NUMBER = re.compile(r"[0-9]{1,18}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FOLDER, _LOCK = "names", ".lock"
_KEPT_NAMES = (CANDIDATE, CONTROL, HELD)


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


def number_of(version: str) -> int:
    """The number of a version: 12 of ``v000012``."""
    return int(version.removeprefix("v"))


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


class Names:
    """The names in the registry `folder`, whose newest version `newest` tells."""

    def __init__(self, folder: Path, newest: Callable[[], str | None]) -> None:
        self._folder = folder
        self._newest = newest
        self._held = folder / _FOLDER / HELD
        self._moves = Moves(folder / _FOLDER)

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
        names = [CHAMPION, CANDIDATE, CONTROL, *self.given()]
        return {name: reference for name in names if (reference := self.legible(name))}

    def given(self) -> list[str]:
        """The names that users gave, in order; no damaged ones, and no other files."""
        names = sorted(path.name for path in (self._folder / _FOLDER).glob("*") if _NAME.fullmatch(path.name))
        return [name for name in names if name not in (CHAMPION, *_KEPT_NAMES) and self.legible(name)]

    def resolve(self, text: str) -> Reference:
        """Of a name, ``v000012``, ``v000012-control`` or ``12``. VersionError, with the names that there are."""
        if _NUMBER.fullmatch(text):
            return Reference(f"v{int(text):06d}")
        if _REFERENCE.fullmatch(text):
            return Reference(text)
        found = self.of(text) if _NAME.fullmatch(text) and text != HELD else None
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
            why = f"{self._held} cannot be read; 'graft student hold' writes it anew, and with --end removes it"
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
        only_from: str | None = None,
        back: bool = False,
    ) -> Move | None:
        """Let `name` stand for `to`, or for nothing; `hold` holds or releases the champion, None leaves that as it is.

        Nothing moves, and the result is None, with `unless_held` while the champion is held, and with `only_from` where
        the name stands for something else. VersionError for a name that nobody may give.
        """
        _check_name(name)
        with self.locked():
            if (unless_held and self._held.exists()) or only_from not in (None, self.legible(name)):
                return None
            return self._moved(name, to, hold=hold, by=by, why=why, numbers=dict(numbers or {}), back=back)

    def move_to_present(self, name: str, to: str, *, by: str, why: str, hold: bool | None) -> Move:
        """As `move`; VersionError where there is no such version any more: nobody prunes it in between."""
        _check_name(name)
        with self.locked():
            if not (self._folder / Reference(to).version).is_dir():
                raise VersionError(f"version {to} has been pruned meanwhile; 'graft student ls' shows what there is")
            return self._moved(name, to, hold=hold, by=by, why=why)

    def hold(self, *, by: str, why: str, hold: bool) -> Move:
        """Hold the champion, or release it; it stays what it is then. VersionError where it is not there or damaged."""
        with self.locked():
            champion = self.of(CHAMPION)
            if champion is None:
                raise VersionError("there is no champion yet; 'graft student train' publishes versions")
            return self._moved(CHAMPION, champion, hold=hold, by=by, why=why)

    def history(self) -> list[Move]:
        """The moves of the last two files of the history, oldest first: at least the last 15,000."""
        return [*self._moves.backwards()][::-1]

    def before(self, champion: str) -> str | None:
        """The champion before `champion` by the history, rollbacks aside: so a second rollback goes further back."""
        moves = [m for m in self.history() if m.name == CHAMPION and m.to != m.was and not m.back]
        return next((m.was for m in reversed(moves) if m.to == champion), None)

    def clear(self) -> None:
        """Remove all names and their history."""
        with self.locked():
            (self._folder / CHAMPION).unlink(missing_ok=True)
            for path in self._held.parent.iterdir():
                if path.name != _LOCK:  # who waits for it would not be alone with who comes later
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / name if name == CHAMPION else self._folder / _FOLDER / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one who moves names or prunes versions; the history ends with a whole line."""
        folder = self._held.parent
        with writing(self._folder):
            make_folder(folder)
            lock = (folder / _LOCK).open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_partial_files(folder)
            self._moves.mend()
            yield

    def _moved(self, name: str, to: str | None, *, hold: bool | None, **told: Any) -> Move:
        """Make one move, within `locked`."""
        was, holding = self.legible(name), self.held()
        self._moves.add_missing(name, was, holding)
        held = holding is not None if hold is None else hold
        move = Move(at_ms=now_ms(), name=name, to=to, was=was, held=held, **told)
        self._make(move, hold)
        try:
            self._moves.append(move)
        except GraftError as error:
            done = f"{name} stands for {to or 'nothing'} now, {'held' if held else 'not held'}"
            raise GraftError(f"{done}; the history does not tell of it before the next move: {error}") from None
        return move

    def _make(self, move: Move, hold: bool | None) -> None:  # noqa: FBT001 - as `move` has it
        """Write what a move says: the hold first, so that no name moves without it; none where the disk is full."""
        with nullcontext() if move.to is None else _replacing_line(self._path(move.name), move.to):
            if hold:
                write_line(self._held, move.model_dump_json())
        with writing(self._folder):
            if move.to is None:
                self._path(move.name).unlink(missing_ok=True)
            if hold is False:
                self._held.unlink(missing_ok=True)


def read_line(path: Path) -> str | None:
    """What stands in a file of one line; None where there is no file. VersionError when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VersionError(f"{path}: cannot be read: {error.strerror}") from None


def write_line(path: Path, line: str) -> None:
    """Replace a file of one line, atomically."""
    with replacing(path) as file:
        file.write(line.encode() + b"\n")


@contextmanager
def _replacing_line(path: Path, line: str) -> Iterator[None]:
    """As `write_line`, when the block ends without an error; the disk has taken the line before the block begins."""
    with replacing(path) as file:
        file.write(line.encode() + b"\n")
        sync_file(file)
        yield


def _check_name(name: str) -> None:
    """VersionError for a name that nobody may give."""
    if not _NAME.fullmatch(name) or _REFERENCE.fullmatch(name) or name in _KEPT_NAMES:
        raise VersionError(
            f"a name is a lower-case letter, then up to 63 lower-case letters, digits, '-' and '_', and none of "
            f"{', '.join(_KEPT_NAMES)}, v000012; got {name!r}"
        )
