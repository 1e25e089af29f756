"""Sends messages when their time has come, and knows of each whether Kafka has it."""

import threading
import time
from collections.abc import Sequence
from typing import Self

from stream import connection
from stream.config import Topics
from tests.chaos.events import Sent
from tests.poison import null_header_values
from tests.simulation.schedule import partition_of


class Sender:
    """Sends `plan`, whose times count from the block's begin, from a thread of its own; a context manager.

    One idempotent producer, which tries again while Kafka is away.
    """

    def __init__(self, kafka_servers: str, topics: Topics, partitions: int, plan: Sequence[Sent]) -> None:
        self._topics, self._partitions, self._plan = topics, partitions, plan
        self._producer = connection.producer(kafka_servers)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self.sent = 0
        self.faults: list[str] = []
        """What Kafka refused, or did not take in time."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close()

    def is_done(self) -> bool:
        """Whether all was sent, and Kafka has taken or refused it."""
        return not self._thread.is_alive()

    def _send_all(self) -> None:
        try:
            with null_header_values():
                for message in self._plan:
                    if self._stop.wait(max(0.0, self._began + message.at_ms / 1000 - time.monotonic())):
                        return
                    self._send(message)
                self._producer.flush()
        except Exception as error:  # noqa: BLE001 - told by the verdict
            self.faults.append(f"the sender ended after {self.sent} messages: {error!r}")

    def _send(self, message: Sent) -> None:
        future = self._producer.send(
            getattr(self._topics, message.topic),
            message.value,
            message.key,
            list(message.headers),
            partition=partition_of(message.key, self._partitions),
        )
        future.add_errback(lambda error: self.faults.append(f"{message}: {error!r}"))
        self.sent += 1
