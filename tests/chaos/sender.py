"""Sends messages when their time has come, and knows of each whether Kafka has it."""

import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Self

from stream.config import Topics
from stream.kafka import connection
from tests.chaos.events import Sent
from tests.chaos.world import PARTITIONS
from tests.poison import null_header_values
from tests.simulation.schedule import partition_of


class Sender:
    """Sends `plan`, whose times count from the block's begin, from a thread of its own; a context manager.

    An idempotent producer tries again while Kafka is away. What it gives up all the same, the next producer sends once
    more, as a product would: then Kafka may have it twice.
    """

    def __init__(self, kafka_servers: str, topics: Topics, plan: Sequence[Sent]) -> None:
        self._kafka_servers = kafka_servers
        self._topics, self._plan = topics, plan
        self._producer = connection.producer(kafka_servers)
        self._given_up: SimpleQueue[Sent] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self.again: list[Sent] = []
        """What was sent once more."""
        self.fault = ""
        """Why the sending ended early; empty otherwise."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close()

    def is_done(self) -> bool:
        """Whether Kafka has taken all."""
        return not self._thread.is_alive()

    def _send_all(self) -> None:
        try:
            with null_header_values():
                for message in self._plan:
                    if self._stop.wait(max(0.0, self._began + message.at_ms / 1000 - time.monotonic())):
                        return
                    self._send_again()
                    self._send(message)
                self._producer.flush()
                while not self._given_up.empty() and not self._stop.is_set():
                    self._send_again()
                    self._producer.flush()
        except Exception as error:  # noqa: BLE001 - told by the verdict
            self.fault = f"the sender ended: {error!r}"

    def _send_again(self) -> None:
        """What the producer has given up, in its order, by a new one: the old one gives up all that follows, too."""
        if self._given_up.empty():
            return
        self._producer.close()
        self._producer = connection.producer(self._kafka_servers)
        for _ in range(self._given_up.qsize()):
            self.again.append(self._given_up.get())
            self._send(self.again[-1])

    def _send(self, message: Sent) -> None:
        future = self._producer.send(
            getattr(self._topics, message.topic),
            message.value,
            message.key,
            list(message.headers),
            partition=partition_of(message.key, PARTITIONS),
        )
        future.add_errback(lambda _: self._given_up.put(message))
