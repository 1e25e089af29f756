r"""Header names that are not UTF-8: read with their odd bytes as ``\xff``, in place of an error that stops the stream.

Kafka's protocol says that header names are UTF-8, and no broker checks it. kafka-python 3.0.12 raises
UnicodeDecodeError from `poll` at such a record, and never gets past it (DefaultRecordBatch._read_msg).
"""

from functools import wraps
from typing import Any

from kafka.record.default_records import DefaultRecordBatch


class _LenientBytes(bytes):
    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")


class _LenientBuffer(bytearray):
    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _LenientBytes(found) if isinstance(place, slice) else found


def read_odd_header_names() -> None:
    """Let every consumer of this process read such records; called once, when this room's door is opened."""
    strict = DefaultRecordBatch._read_msg  # noqa: SLF001 - there is no other place to decide it

    @wraps(strict)
    def read(batch: Any, *arguments: Any) -> Any:
        try:
            return strict(batch, *arguments)
        except UnicodeDecodeError:
            buffer = batch._buffer  # noqa: SLF001
            batch._buffer = _LenientBuffer(buffer)  # noqa: SLF001
            try:
                return strict(batch, *arguments)
            finally:
                batch._buffer = buffer  # noqa: SLF001

    DefaultRecordBatch._read_msg = read  # noqa: SLF001
