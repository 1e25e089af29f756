"""Entries of a state log in the value of a Kafka record: many in one, since each record costs its client much time.

    count, then for each entry: bytes of its key, bytes of its value (-1: the key is gone), key, value

Numbers have four bytes, the lowest first; keys are UTF-8.
"""

import struct
from collections.abc import Iterable, Iterator

from stream.join.log_cleaner import Entry

_MOST_BYTES = 256 * 1024  # of a record, unless its only entry is larger: so much is deleted from a log at a time
_COUNT = struct.Struct("<I")
_SIZES = struct.Struct("<Ii")


def packed(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The values of the records that hold these entries in their order."""
    parts: list[bytes] = []
    count = size = 0
    for key, value in entries:
        name = key.encode()
        added = _SIZES.size + len(name) + len(value or b"")
        if count and size + added > _MOST_BYTES:
            yield _COUNT.pack(count) + b"".join(parts)
            parts, count, size = [], 0, 0
        parts += _SIZES.pack(len(name), -1 if value is None else len(value)), name, value or b""
        count += 1
        size += added
    if count:
        yield _COUNT.pack(count) + b"".join(parts)


def count_of(value: bytes) -> int:
    """How many entries a record's value holds."""
    (count,) = _COUNT.unpack_from(value)
    return int(count)


def unpacked(value: bytes) -> Iterator[Entry]:
    """The entries of a record's value."""
    at = _COUNT.size
    while at < len(value):
        key_size, value_size = _SIZES.unpack_from(value, at)
        begin = at + _SIZES.size + key_size
        at = begin + max(value_size, 0)
        yield value[begin - key_size : begin].decode(), None if value_size < 0 else value[begin:at]
