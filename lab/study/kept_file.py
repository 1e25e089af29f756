"""A file that is there as a whole or not at all, also when several processes write it at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def arriving(path: Path) -> Iterator[Path]:
    """Where to write; what is there when the block ends is at `path` from then on, and after an error nothing is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
