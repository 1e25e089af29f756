"""A Kafka message as it came."""

import base64
from typing import Any, NamedTuple

Header = tuple[str, bytes | None]
"""Name and value; Kafka allows a header without a value."""


class Message(NamedTuple):
    """A message's bytes and where they came from."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int = -1
    """When the broker took it, or when its producer says that it sent it (the topic's setting); -1: not known."""

    def to_json(self) -> list[object]:
        """The message as JSON values; bytes in base 64."""
        return [
            self.topic,
            self.partition,
            self.offset,
            _text(self.key),
            _text(self.value),
            [[name, _text(value)] for name, value in self.headers],
            self.timestamp_ms,
        ]

    @staticmethod
    def from_json(values: list[object]) -> "Message":
        """The message that `to_json` gave."""
        topic, partition, offset, key, value, headers, *rest = values
        assert isinstance(topic, str)
        assert isinstance(partition, int)
        assert isinstance(offset, int)
        assert isinstance(headers, list)
        own = tuple((name, _bytes(v)) for name, v in headers)
        timestamp_ms = rest[0] if rest else -1  # a state that was saved before messages had their time
        assert isinstance(timestamp_ms, int)
        return Message(topic, partition, offset, _bytes(key), _bytes(value), own, timestamp_ms)


def message_of(record: Any) -> Message:
    """A kafka-python ConsumerRecord as a message."""
    return Message(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple(record.headers or ()),
        record.timestamp if record.timestamp is not None else -1,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: object) -> bytes | None:
    return base64.b64decode(value) if isinstance(value, str) else None
