"""A folder that outlives its writers: one at a time, and names that last. A leaf: every room may import it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import GraftError

_LOCK_FILE = ".lock"


@contextmanager
def claim_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Be the one writer of `folder`, which is made where it is missing.

    The claim ends with the process, also when it is killed. GraftError, the folder and `refusal`, when another has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GraftError(f"{folder}: {refusal}") from None
        yield


def sync_folder(folder: Path) -> None:
    """Put the folder's entries on disk: a name that was made, replaced or moved there outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
