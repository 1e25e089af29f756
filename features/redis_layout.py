"""How Feast 0.67 lays an entity out in Redis, and the commands that read it. Entity key serialization version 3.

One hash per entity and project; all views of the entity share it:

    key    <I 1> <I 2> <I len(join_key)> join_key <I type> <I len(id)> id  project      (I: little-endian uint32)
    field  <I murmur3_32("view:feature")>          value: a serialized feast.types.Value
    field  "_ts:view"                              value: a serialized google.protobuf.Timestamp

Sources: feast/infra/key_encoding_utils.py and feast/infra/online_stores/{helpers,redis}.py; the parity test reads the
same entities through Feast and through this module.
"""

import struct
from collections.abc import Sequence

import mmh3

from features.ids import EntityId, IdType
from runtime.redis import literal

SERIALIZATION_VERSION = 3
_STRING, _INT64 = 2, 4  # feast.ValueType


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
