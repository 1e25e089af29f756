"""Folders and files: one writer at a time, whole or absent, errors of the disk, digests, Parquet read in parts."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from runtime.errors import GraftError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # noqa: TID251 - open_parquet is what the rule names

_LOCK_FILE = ".lock"
_PARTIAL_SUFFIX = ".partial"
_FULL = "make room on its disk, then start again"
_NO_RIGHT = "give this process's user the right to write there, or name another folder"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: "mount it for writing, or name another folder",
}
_PARQUET_BUFFER_BYTES = 1 << 20  # of each column; without it Arrow reads a row group's whole column at once


@contextmanager
def claim_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Be the one writer of `folder`, which is made where it is missing.

    The claim ends with the process, also when it is killed. GraftError, the folder and `refusal`, when another process
    has it; GraftError too when the disk takes no writes.
    """
    with writing(folder):
        make_folder(folder)
        lock = (folder / _LOCK_FILE).open("w")
    with lock:
        with writing(folder):
            _lock(lock, f"{folder}: {refusal}")
        yield


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write. When the block ends it is on disk, whole and under the name `path`; after an error it is not.

    The folder of `path` is made where it is missing. Until the end the file is a hidden neighbour of `path`, which
    readers pass over; a killed process leaves it behind for `remove_partial_files`. GraftError when the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL_SUFFIX}")
    with writing(path.parent):
        make_folder(path.parent)
        try:
            with partial.open("wb") as file:
                yield file
                sync_file(file)
            partial.replace(path)
        except Exception:
            partial.unlink(missing_ok=True)  # on a full disk it holds the room that is missing
            raise
        sync_folder(path.parent)


def remove_partial_files(folder: Path, folders: str = "") -> None:
    """Remove what killed writers left in `folder`, or in its subfolders that fit the pattern `folders`.

    Only for the one writer that has claimed it.
    """
    with writing(folder):
        for path in folder.glob(f"{folders}/.*{_PARTIAL_SUFFIX}".removeprefix("/")):
            path.unlink()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk that takes no writes inside the block into a GraftError of one line that names `folder`."""
    try:
        yield
    except GraftError:  # some are OSErrors too, and none is the disk's
        raise
    except OSError as error:
        advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        raise GraftError(f"{folder}: cannot be written: {error.strerror or error}{advice}") from error


def refusal(error: OSError) -> str | None:
    """One line for a file or folder that the disk, or its owner, refuses; None where the error is another.

    A write to a full disk does not say which file it was.
    """
    advice = _ADVICE.get(error.errno or 0)
    if advice is None or (error.filename is None and advice != _FULL):
        return None
    return f"{error.filename or 'a file'}: {error.strerror}; {advice}"


def lies_within(path: Path, folder: Path) -> bool:
    """Whether the path, with all links followed, is in `folder`. A loop of links is told by who reads the path."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))  # `resolve` raises at a loop


def make_folder(folder: Path) -> None:
    """Make the folder, and those above it that are missing; their names outlive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's entries on disk: a name that was made, replaced or moved there outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and put it on disk, for a folder that is hidden until it is whole; OSError when the disk refuses."""
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)


def append_synced(path: Path, data: bytes) -> None:
    """Append to a file, which is made where it is missing, and put it on disk; OSError when the disk refuses."""
    with path.open("ab") as file:
        file.write(data)
        sync_file(file)


def sync_file(file: IO[bytes]) -> None:
    """Put what was written to a file on disk; OSError when the disk refuses."""
    file.flush()
    os.fsync(file.fileno())


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hexadecimal digits. OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_parquet(path: Path, *, check_pages: bool = False) -> "ParquetFile":
    """The file; its `iter_batches` keeps a few MiB of a long file in memory. OSError, pa.ArrowException.

    By default Arrow keeps all bytes that it has read until the file is closed (`pre_buffer`, apache/arrow#39808).
    `check_pages`: compare each page with its checksum.
    """
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415, TID251 - the scorer has no Arrow in memory

    return ParquetFile(
        path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES, page_checksum_verification=check_pages
    )


def _lock(lock: IO[str], refusal: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GraftError(refusal) from None
