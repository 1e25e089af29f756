"""Disks that take no writes, for the tests of what is said then. Mounting needs root on Linux."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST = "ballast"


class NotMountableError(OSError):
    """A disk can be mounted by root on Linux alone."""


class Disk:
    """A small file system in memory, mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, spare_bytes: int = 0) -> None:
        """Leave no room but `spare_bytes`."""
        with (self.folder / _BALLAST).open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65_536))
            except OSError:
                file.truncate(max(0, file.tell() - spare_bytes))

    def make_room(self) -> None:
        (self.folder / _BALLAST).unlink()

    def refuse_writes(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.folder))


@contextmanager
def mounted(folder: Path, size: str = "16m") -> Iterator[Disk]:
    """A disk of `size` at `folder`; NotMountableError where it cannot be mounted."""
    folder.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotMountableError("a disk can be mounted by root on Linux alone") from error
    try:
        yield Disk(folder)
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
