"""Short names of contents."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from runtime.errors import InvalidInputError


def digest_of(parts: Iterable[str | Path]) -> str:
    """16 hexadecimal digits of texts, and of files given by path; InvalidInputError for one that cannot be read."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else _read(part)
        digest.update(len(content).to_bytes(8))  # where a part ends is a part of it
        digest.update(content)
    return digest.hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from None
