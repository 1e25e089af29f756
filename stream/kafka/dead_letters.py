"""Dead letters: messages that cannot be used. They stand in `<topic>.dlq` with their bytes and the reason.

The headers are those of Kafka Streams (KIP-1034) and ours; every value is UTF-8 text:

    __streams.errors.message      why, in a sentence
    __streams.errors.topic        where the message stood: its topic, ...
    __streams.errors.partition    ... its partition ...
    __streams.errors.offset       ... and its offset
    graft.errors.code             the reason's short name, as in the metrics
    graft.errors.stage            "poll", "validate" or "join"
    graft.errors.attempt          how often the message has become a dead letter, with this time
    graft.errors.size             only where the value did not fit: its bytes ...
    graft.errors.sha256           ... and their digest, in place of the value

The message's own headers follow. Names that begin with `graft.` or `__streams.errors.` are ours: a message's own header
of such a name, or one without a value, which a producer cannot send, gets a prefix (`own_headers`), so that no message
can pass its own header for the reason. `restored` takes the prefixes off again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runtime.errors import InvalidInputError
from stream.messages import Header, Message

MAX_TEXT_CHARACTERS = 2_000
MAX_DEAD_LETTER_BYTES = 3_900_000
"""Of key, value and headers. The topic takes 4,000,000 bytes a record, the record's own frame among them."""

ATTEMPT = "graft.errors.attempt"
SKIPPED = "skipped"
"""The code of a record that stands for messages which nobody could decode (stream/kafka/decoding.py): no message."""

_SIZE, _DIGEST = "graft.errors.size", "graft.errors.sha256"
_STREAMS, _OURS = "__streams.errors.", "graft."
_RESERVED = (_STREAMS, _OURS)
_ESCAPED, _NULL = "graft.original.", "graft.null."


class DeadLetter(NamedTuple):
    """A message that cannot be used: the reason's short name, where it was found, and a sentence for people."""

    message: Message
    code: str
    text: str
    stage: str = "join"

    def record(self) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
        """Key, value and headers of the dead letter. A value that does not fit gives way to its size and digest.

        Own headers give way too where they alone do not fit, and so does the key.
        """
        key, value, own = self.message.key, self.message.value, own_headers(self.message.headers)
        ours = self._headers()
        if _bytes_of(key, value, [*ours, *own]) > MAX_DEAD_LETTER_BYTES:
            data = value or b""
            cut = [(_SIZE, str(len(data)).encode()), (_DIGEST, hashlib.sha256(data).hexdigest().encode())]
            value, ours = b"", [*ours, *cut]
        if _bytes_of(key, value, [*ours, *own]) > MAX_DEAD_LETTER_BYTES:
            key, own = None, []
        if key is None and value is None:
            value = b""  # Kafka takes no record without both
        return key, value, [*ours, *own]

    def _headers(self) -> list[tuple[str, bytes]]:
        message = self.message
        ours = {
            f"{_STREAMS}message": self.text[:MAX_TEXT_CHARACTERS],
            f"{_STREAMS}topic": message.topic,
            f"{_STREAMS}partition": str(message.partition),
            f"{_STREAMS}offset": str(message.offset),
            "graft.errors.code": self.code,
            "graft.errors.stage": self.stage,
            ATTEMPT: str(attempts_before(message.headers) + 1),
        }
        return [(name, text.encode("utf-8", "replace")) for name, text in ours.items()]


class StoredLetter(NamedTuple):
    """A dead letter as it was read from its topic: where it stands there, since when, why, and what it was."""

    partition: int
    offset: int
    written_ms: int
    code: str
    stage: str
    text: str
    attempt: int
    is_cut: bool
    message: Message
    """As it stood in its topic; without its value where `is_cut`."""


def stored_letter(topic: str, partition: int, offset: int, written_ms: int, message: Message) -> StoredLetter:
    """Read one record of the dead-letter topic `topic`; InvalidInputError where it is none of ours."""
    headers = {name: value for name, value in message.headers if value is not None}
    try:
        place = Message(
            headers[f"{_STREAMS}topic"].decode(),
            int(headers[f"{_STREAMS}partition"]),
            int(headers[f"{_STREAMS}offset"]),
            message.key,
            message.value,
            restored(message.headers),
        )
        code, stage, text = (
            headers[name].decode("utf-8", "replace")
            for name in ("graft.errors.code", "graft.errors.stage", f"{_STREAMS}message")
        )
        attempt = int(headers[ATTEMPT])
    except (KeyError, ValueError) as error:
        raise InvalidInputError(
            f"{topic}-{partition} offset {offset}: a dead letter has the headers of docs/dead-letters.md, "
            f"and this record has not: {error!r}"
        ) from None
    return StoredLetter(partition, offset, written_ms, code, stage, text, attempt, _DIGEST in headers, place)


def own_headers(headers: Iterable[Header]) -> list[tuple[str, bytes]]:
    """A message's own headers as a dead letter carries them."""
    escaped: list[tuple[str, bytes]] = []
    for name, value in headers:
        if name == ATTEMPT:
            continue  # counted on by the dead letter's own
        if value is None:
            escaped.append((_NULL + name, b""))
        else:
            escaped.append((_ESCAPED + name if name.startswith(_RESERVED) else name, value))
    return escaped


def restored(headers: Iterable[Header]) -> tuple[Header, ...]:
    """A dead letter's headers as the message had them: without ours, and without the prefixes of `own_headers`."""
    own: list[Header] = []
    for name, value in headers:
        if name.startswith(_NULL):
            own.append((name.removeprefix(_NULL), None))
        elif name.startswith(_ESCAPED):
            own.append((name.removeprefix(_ESCAPED), value))
        elif not name.startswith(_RESERVED):
            own.append((name, value))
    return tuple(own)


def attempts_before(headers: Iterable[Header]) -> int:
    """How often this message was a dead letter before: what its replay wrote into it; 0 for any other message."""
    found: Mapping[str, bytes | None] = dict(headers)
    value = found.get(ATTEMPT) or b""
    return int(value) if value.isdigit() and len(value) < 4 else 0


def _bytes_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    return len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(data) for name, data in headers)
