"""How Feast 0.67 lays an entity out in Redis: its key, the commands that read it, and its values, decoded by column.

Entity key serialization version 3.

One hash per entity and project; all views of the entity share it:

    key    <I 1> <I 2> <I len(join_key)> join_key <I type> <I len(id)> id  project      (I: little-endian uint32)
    field  <I murmur3_32("view:feature")>          value: a serialized feast.types.Value
    field  "_ts:view"                              value: a serialized google.protobuf.Timestamp

Sources: feast/infra/key_encoding_utils.py and feast/infra/online_stores/{helpers,redis}.py; the parity test reads the
same entities through Feast and through this module. Values are equal to what get_online_features gives, with three
differences that keep a row loggable and learnable: a BOOL is 0 or 1, and a number that is not finite or a value that
does not fit the declared type or width is a miss (None), counted.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import mmh3
import numpy as np
from prometheus_client import Counter

from features.spec import EntityId, Feature, IdType, Value
from runtime.redis import literal

SERIALIZATION_VERSION = 3


def field_name(view: str, feature: str) -> bytes:
    """The hash field that holds one feature."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def begin_field(view: str) -> bytes:
    """The hash field that holds the time from which the row of a view holds."""
    return f"_ts:{view}".encode()


class EntityLayout:
    """The hashes of one entity, and the fields that are read of each of them."""

    def __init__(self, project: str, join_key: str, id_type: IdType, fields: Sequence[bytes]) -> None:
        self.id_type = id_type
        self.width = len(fields)
        """Values in each reply."""
        self._project = project.encode()
        name = join_key.encode()
        kind = _INT64 if id_type == "int" else _STRING
        self._prefix = struct.pack("<III", 1, _STRING, len(name)) + name + struct.pack("<I", kind)
        self._start = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields))
        self._end = b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)

    @property
    def pattern(self) -> bytes:
        """What Redis' SCAN matches for the keys of this entity; it may match others, too: see `has`."""
        return literal(self._prefix) + b"*" + literal(self._project)

    def has(self, key: bytes) -> bool:
        """Whether `key` is that of an entity of this join key, id type and project."""
        start = len(self._prefix) + 4
        if not key.startswith(self._prefix) or len(key) < start:
            return False
        (size,) = struct.unpack_from("<I", key, len(self._prefix))
        return key[start + size :] == self._project

    def key(self, entity_id: EntityId) -> bytes:
        """The Redis key of an entity; `entity_id` comes from `usable_id`."""
        if isinstance(entity_id, int):
            return self._prefix + struct.pack("<Iq", 8, entity_id) + self._project
        text = entity_id.encode("utf-8", "surrogatepass")
        return self._prefix + struct.pack("<I", len(text)) + text + self._project

    def id_of(self, key: bytes) -> EntityId | None:
        """The id whose key this is; None for a key of no entity of this layout."""
        if not self.has(key):
            return None
        text = key[len(self._prefix) + 4 : len(key) - len(self._project)]
        if self.id_type == "str":
            return text.decode("utf-8", "surrogatepass")
        found: int = struct.unpack("<q", text)[0]
        return found

    def read_command(self, entity_id: EntityId) -> bytes:
        """HMGET of the entity's fields as Redis' wire protocol has it."""
        key = self.key(entity_id)
        return b"%b$%d\r\n%b%b" % (self._start, len(key), key, self._end)


UNUSABLE_VALUES = Counter(
    "graft_features_unusable_values_total", "Stored values that do not fit their feature; read as a miss", ["feature"]
)

# Numbers of the members of feast.types.Value; a tag is number << 3 | wire type.
_STRING, _INT32, _INT64, _DOUBLE, _FLOAT, _BOOL, _DOUBLE_LIST, _FLOAT_LIST = 2, 3, 4, 5, 6, 7, 15, 16

_NUMBERS: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype([("tag", "u1"), ("value", "<f4")]),
    "DOUBLE": np.dtype([("tag", "u1"), ("value", "<f8")]),
}
_NUMBER_TAGS = {"FLOAT": _FLOAT << 3 | 5, "DOUBLE": _DOUBLE << 3 | 1}
_LISTS: dict[str, np.dtype[Any]] = {"FLOAT_LIST": np.dtype("<f4"), "DOUBLE_LIST": np.dtype("<f8")}
_FLOAT32 = struct.Struct("<f")
_STRING_TAG = _STRING << 3 | 2
_SHORT_MESSAGE = 130  # tag, a length of one byte, up to 127 bytes of text
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # of a Timestamp: the years 1 to 9999
_FEW = 4  # values that are decoded sooner one by one than as an array
_SMALL_INT = {"INT32": _INT32 << 3, "INT64": _INT64 << 3}

DTYPES = {
    "FLOAT": "float",
    "DOUBLE": "float",
    "INT32": "int",
    "INT64": "int",
    "BOOL": "int",
    "STRING": "str",
    "FLOAT_LIST": "float_list",
    "DOUBLE_LIST": "float_list",
}
"""Feast's value types that a feature may have, and what they are here."""


def decode_column(feature: Feature, raws: Sequence[bytes | None]) -> list[Value]:
    """One value per stored message; None for a missing field or an empty message."""
    present = [raw for raw in raws if raw]
    values = _decode_present(feature, present) if present else []
    if len(present) == len(raws):
        return values
    following = iter(values)
    return [next(following) if raw else None for raw in raws]


def decode_value(feature: Feature, raw: bytes) -> Value:
    """The value of one stored message, which is not empty."""
    if feature.value_type == "FLOAT" and len(raw) == 5 and raw[0] == _NUMBER_TAGS["FLOAT"]:  # most values are of these
        number: float = _FLOAT32.unpack_from(raw, 1)[0]
        if math.isfinite(number):
            return number
    elif feature.value_type == "STRING" and (text := _short_strings([raw])):
        return text[0]
    value = _fitting(feature, _read_message(raw))
    if value is None:
        UNUSABLE_VALUES.labels(feature.name).inc()
    return value


def decode_begin_ms(raw: bytes) -> int | None:
    """The first whole millisecond since 1970 at which a row holds, of the google.protobuf.Timestamp of its view.

    None for bytes that Feast did not write.
    """
    parts = {1: 0, 2: 0}  # seconds, nanoseconds; each is left out where it is 0
    at = 0
    try:
        while at < len(raw):
            tag, at = _read_varint(raw, at)
            value, at = _read_varint(raw, at)
            parts[tag >> 3] = value - 2**64 if value >= 2**63 else value
    except (IndexError, ValueError):
        return None
    if not _FIRST_SECOND <= parts[1] <= _LAST_SECOND:
        return None
    return parts[1] * 1000 - (-parts[2] // 1_000_000)


def _decode_present(feature: Feature, raws: list[bytes]) -> list[Value]:
    fast: list[Any] | None = None
    if len(raws) < _FEW:
        pass
    elif feature.value_type == "STRING":
        fast = _short_strings(raws)
    elif feature.value_type in _NUMBERS:
        fast = _numbers(feature.value_type, raws)
    elif feature.value_type in _LISTS:
        fast = _lists(feature, raws)
    elif feature.value_type in _SMALL_INT:
        fast = _small_ints(feature.value_type, raws)
    return fast if fast is not None else [decode_value(feature, raw) for raw in raws]


def _short_strings(raws: list[bytes]) -> list[str] | None:
    """All strings when each is of less than 128 bytes, else None."""
    usable = all(raw[0] == _STRING_TAG and 1 < len(raw) == raw[1] + 2 < _SHORT_MESSAGE for raw in raws)
    try:
        return [raw[2:].decode() for raw in raws] if usable else None
    except UnicodeDecodeError:
        return None


def _numbers(value_type: str, raws: list[bytes]) -> list[float] | None:
    """All values at once when each is an ordinary finite one, else None."""
    message = _NUMBERS[value_type]
    if set(map(len, raws)) != {message.itemsize}:
        return None
    table = np.frombuffer(b"".join(raws), message)
    values = table["value"]
    usable = (table["tag"] == _NUMBER_TAGS[value_type]).all() and np.isfinite(values).all()
    return values.tolist() if usable else None


def _lists(feature: Feature, raws: list[bytes]) -> list[list[float]] | None:
    """All lists at once when they are alike in length and finite, else None."""
    number = _LISTS[feature.value_type]
    width = feature.width if feature.role == "embedding" else _list_length(raws[0], number.itemsize)
    header = _list_header(feature.value_type, width * number.itemsize)
    if width == 0 or set(map(len, raws)) != {len(header) + width * number.itemsize}:
        return None
    message = np.dtype([("header", f"V{len(header)}"), ("values", number, (width,))])
    table = np.frombuffer(b"".join(raws), message)
    usable = (table["header"] == np.void(header)).all() and np.isfinite(table["values"]).all()
    return table["values"].tolist() if usable else None


def _small_ints(value_type: str, raws: list[bytes]) -> list[int] | None:
    """All integers at once when each is in 0..127, else None."""
    if set(map(len, raws)) != {2}:
        return None
    joined = b"".join(raws)
    return list(joined[1::2]) if joined[::2] == bytes([_SMALL_INT[value_type]]) * len(raws) else None


def _list_length(raw: bytes, itemsize: int) -> int:
    values = _read_message(raw)
    return len(values) if isinstance(values, list) and itemsize else 0


def _list_header(value_type: str, size: int) -> bytes:
    number = _FLOAT_LIST if value_type == "FLOAT_LIST" else _DOUBLE_LIST
    inner = b"\x0a" + _varint(size)
    return _varint(number << 3 | 2) + _varint(len(inner) + size) + inner


def _fitting(feature: Feature, value: Value) -> Value:
    """The value if it is of the feature's type, finite and of its width, else None."""
    if isinstance(value, list):
        right_width = feature.role != "embedding" or len(value) == feature.width
        return value if feature.dtype == "float_list" and right_width and all(map(math.isfinite, value)) else None
    if isinstance(value, str):
        return value if feature.dtype == "str" else None
    if isinstance(value, int):
        return {"int": value, "float": float(value)}.get(feature.dtype)
    return value if value is not None and feature.dtype == "float" and math.isfinite(value) else None


def _read_message(raw: bytes) -> Value:
    """The value of one message whatever its type; None for types that no feature may have, and for no message."""
    try:
        return _read_value(raw)
    except (IndexError, ValueError, struct.error):  # bytes that Feast did not write
        return None


def _read_value(raw: bytes) -> Value:
    tag, at = _read_varint(raw, 0)
    number = tag >> 3
    if number == _FLOAT:
        return float(struct.unpack_from("<f", raw, at)[0])
    if number == _DOUBLE:
        return float(struct.unpack_from("<d", raw, at)[0])
    if number in (_INT32, _INT64, _BOOL):
        value, _ = _read_varint(raw, at)
        return value - 2**64 if value >= 2**63 else value
    if number not in (_STRING, _FLOAT_LIST, _DOUBLE_LIST):
        return None
    size, at = _read_varint(raw, at)
    body = raw[at : at + size]
    return body.decode() if number == _STRING else _read_list(body, "<f4" if number == _FLOAT_LIST else "<f8")


def _read_list(body: bytes, number: str) -> list[float]:
    if not body:
        return []
    size, at = _read_varint(body, 1)  # body[0]: the tag of the one packed field
    return [float(value) for value in np.frombuffer(body[at : at + size], number)]


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint has at most 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
