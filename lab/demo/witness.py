"""An independent check of "one example, once": counts the impression ids on the examples topic while it is written."""

import threading
import time
from collections.abc import Set as AbstractSet
from typing import Self

from lab.demo.outcome import Joined
from runtime.errors import GraftError
from stream.config import Topics
from stream.examples import ExampleReader, ExampleRecord

_POLL_SECONDS = 0.2


class IdCount:
    """How often each impression id came as an example."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self.examples = 0
        """All that came, doubled ones included."""

    @property
    def distinct(self) -> int:
        """Impressions that became an example."""
        return len(self._times)

    def add(self, impression_id: str) -> None:
        """Count one example."""
        self._times[impression_id] = self._times.get(impression_id, 0) + 1
        self.examples += 1

    def joined(self, impressions: AbstractSet[str]) -> Joined:
        """What became of `impressions`, the distinct valid ids that were sent."""
        came = self._times.keys()
        return Joined(
            impressions=len(impressions),
            examples=self.examples,
            missing=len(impressions - came),
            doubled=self.examples - len(self._times),
            unknown=len(came - impressions),
        )


class Witness:
    """Reads every committed example of the topic in a thread of its own.

    `count` has those that were read so far, `first` is the first `keep` of them, `came_at_seconds` when each was read,
    since `started_at` (of time.monotonic).
    """

    def __init__(self, kafka_servers: str, topics: Topics, keep: int, started_at: float) -> None:
        self.count = IdCount()
        self.first: list[ExampleRecord] = []
        self.came_at_seconds: list[float] = []
        self._started_at = started_at
        self._keep = keep
        self._reader = ExampleReader(kafka_servers, topics, {})
        self._stop = threading.Event()
        self._found_nothing = threading.Event()
        self._failure: GraftError | None = None
        self._thread = threading.Thread(target=self._read_until_stopped, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def check(self) -> None:
        """Raise the error that ended the reading, such as records that were dropped before they were read."""
        if self._failure is not None:
            raise self._failure

    def read_to_end(self, seconds: float) -> None:
        """Return when the topic has nothing more to read, or after `seconds`."""
        for _ in range(2):  # the first of the two looks may have begun before the topic's last record
            self._found_nothing.clear()
            self._found_nothing.wait(seconds / 2)

    def _read_until_stopped(self) -> None:
        try:
            while not self._stop.is_set():
                records = self._reader.poll(_POLL_SECONDS)
                self.first += records[: self._keep - len(self.first)]
                self.came_at_seconds += [time.monotonic() - self._started_at] * len(records)
                for record in records:
                    self.count.add(record.example.impression_id)
                if not records:
                    self._found_nothing.set()
        except GraftError as error:
            self._failure = error
