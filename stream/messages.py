"""A Kafka message as it came, and the dead letter that it becomes when it cannot be used."""

import base64
from typing import NamedTuple

MAX_REASON_CHARACTERS = 2_000


class Message(NamedTuple):
    """A message's bytes and where they came from."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def to_json(self) -> list[object]:
        """The message as JSON values; bytes in base 64."""
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
        return Message(
            topic, partition, offset, _bytes(key), _bytes(value), tuple((name, _bytes(v) or b"") for name, v in headers)
        )


class DeadLetter(NamedTuple):
    """A message that cannot be used, and why in a sentence. `kind` is the reason's short name in the metrics."""

    message: Message
    kind: str
    reason: str

    def headers(self) -> list[tuple[str, bytes]]:
        """Why and whence, utf-8; then the message's own headers."""
        return [
            ("reason", self.reason[:MAX_REASON_CHARACTERS].encode()),
            ("topic", self.message.topic.encode()),
            ("partition", str(self.message.partition).encode()),
            ("offset", str(self.message.offset).encode()),
            *self.message.headers,
        ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: object) -> bytes | None:
    return base64.b64decode(value) if isinstance(value, str) else None
