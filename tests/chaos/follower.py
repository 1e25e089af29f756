"""Reads every topic of a pair while it is written, committed records alone, and keeps what a verdict needs."""

import json
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, Self

from kafka import TopicPartition

from stream.config import Topics
from stream.kafka import connection
from stream.messages import message_of
from tests.chaos.world import PARTITIONS
from tests.outcomes import Input, Letter, Place, letter_of

_POLL_MS = 200


class ReadExample(NamedTuple):
    """An example and where it stands; `raw` is its JSON."""

    partition: int
    offset: int
    impression_id: str
    labels: dict[str, float | None]
    raw: bytes


class AskedRow(NamedTuple):
    """What of a teacher request is looked at."""

    impression_id: str
    user_id: str
    item_id: int
    features: list[Any]


class Follower:
    """What stands in the topics so far. A thread of its own reads; a context manager.

    `invalid` has the values that can be no event, before they can be read.
    """

    def __init__(self, kafka_servers: str, topics: Topics, invalid: AbstractSet[bytes | None]) -> None:
        self.inputs: dict[Place, Input] = {}
        self.letters: list[tuple[Place, Letter]] = []
        self.examples: list[ReadExample] = []
        self.requests: list[AskedRow] = []
        self.fault = ""
        """Why the reading ended; empty otherwise."""
        self._topics, self._invalid = topics, invalid
        self._inputs = (topics.impressions, topics.feedback)
        self._names = (*self._inputs, topics.examples, topics.teacher_requests, *map(topics.dead_letters, self._inputs))
        self._consumer = connection.consumer(kafka_servers)
        self._consumer.assign([TopicPartition(name, p) for name in self._names for p in range(PARTITIONS)])
        for at in self._consumer.assignment():
            self._consumer.seek(at, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def messages(self) -> Iterator[Input]:
        """The inputs' messages, those of each partition in the order of their offsets."""
        found = list(self.inputs.values())  # at once: the thread reads on
        return iter(sorted(found, key=lambda message: message.place))

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                for at, records in self._consumer.poll(timeout_ms=_POLL_MS).items():
                    for record in records:
                        self._take(at.topic, record)
        except Exception as error:  # noqa: BLE001 - told by the verdict
            self.fault = f"the topics cannot be read to their end: {error!r}"

    def _take(self, topic: str, record: Any) -> None:
        if topic in self._inputs:
            place = (topic, record.partition, record.offset)
            appended_ms = message_of(record).appended_ms
            at_ms = time.time() * 1000 if appended_ms is None else appended_ms
            self.inputs[place] = Input(place, record.value, record.value in self._invalid, at_ms, at_ms)
        elif topic == self._topics.examples:
            fields = json.loads(record.value)
            labels = fields["labels"]
            example = ReadExample(record.partition, record.offset, fields["impression_id"], labels, record.value)
            self.examples.append(example)
        elif topic == self._topics.teacher_requests:
            fields = json.loads(record.value)
            self.requests.append(AskedRow(*(fields[name] for name in AskedRow._fields)))
        else:
            self.letters.append(letter_of(record.headers, record.value))
