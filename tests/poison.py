"""Messages that nobody planned for: values that can be no event, and headers that no client of ours would send."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from kafka.record.default_records import DefaultRecordBatchBuilder

YEAR_2100_MS = 4_102_444_800_000

NULL = b"null"
"""Inside `null_header_values`, a header of this value is sent without a value."""


def invalid_values(shown: Mapping[str, object], answer: Mapping[str, object]) -> list[bytes | None]:
    """Values that can be no event of any pair, made from an impression and from a feedback whose value is 1."""
    raw = json.dumps(shown).encode()
    return [
        *(b"", None, b"not json", b"\xff\xfe\x00", b"[" * 300, b"{}", raw[:-1], json.dumps({"x": 1, **shown}).encode()),
        json.dumps({**answer, "task": "share"}).encode(),  # as of a task that was removed
        with_number(answer, "1" * 309),
        with_number(answer, "NaN"),
        json.dumps({**shown, "impression_id": "i" + "9" * 300}).encode(),
        b"x" * 3_000,
    ]


def with_number(answer: Mapping[str, object], digits: str) -> bytes:
    """A feedback whose value 1 is written as `digits`."""
    return json.dumps(answer).replace('"value": 1,', f'"value": {digits},').encode()


class OddName(str):
    """A header's name whose bytes are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@contextmanager
def null_header_values() -> Iterator[None]:
    """Let the producers of this process send headers without a value: the client refuses it, the protocol does not."""
    append = DefaultRecordBatchBuilder.append

    def with_null(self: Any, offset: int, timestamp: int, key: bytes, value: bytes, headers: Any, **more: Any) -> Any:
        nulled = [(name, None if data == NULL else data) for name, data in headers]
        return append(self, offset, timestamp, key, value, nulled, **more)

    with mock.patch.object(DefaultRecordBatchBuilder, "append", with_null):
        yield
