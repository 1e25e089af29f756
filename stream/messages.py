"""A Kafka message as it came."""

import base64
from typing import Any, NamedTuple

_LOG_APPEND_TIME = 1  # Kafka's timestamp type; 0 is the time that the producer gives

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
    appended_ms: int | None = None
    """When the broker took it, by its clock; None where the topic keeps the producer's time instead."""

    def to_json(self) -> list[object]:
        """The message as JSON values; bytes in base 64, without the broker's time."""
        return [
            self.topic,
            self.partition,
            self.offset,
            _text(self.key),
            _text(self.value),
            [[name, _text(value)] for name, value in self.headers],
        ]

    @staticmethod
    def from_json(values: list[object]) -> "Message":
        """The message that `to_json` gave."""
        topic, partition, offset, key, value, headers = values
        assert isinstance(topic, str)
        assert isinstance(partition, int)
        assert isinstance(offset, int)
        assert isinstance(headers, list)
        own = tuple((name, _bytes(v)) for name, v in headers)
        return Message(topic, partition, offset, _bytes(key), _bytes(value), own)


def message_of(record: Any) -> Message:
    """A kafka-python ConsumerRecord as a message."""
    return Message(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple(record.headers or ()),
        record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else None,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: object) -> bytes | None:
    return base64.b64decode(value) if isinstance(value, str) else None
