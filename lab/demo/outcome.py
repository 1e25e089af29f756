"""What is counted while the stages run: every example of the topic, every answer, and the time between the two."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lab.dev.client import Answer, Swap, swaps_seen
from lab.dev.watch import HitRate
from runtime.errors import GraftError
from stream.config import Topics
from stream.log.examples import ExampleReader
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

_POLL_SECONDS = 0.2


class Joined(NamedTuple):
    """How many impressions were sent, how many examples they became, and how many are missing, doubled or unknown."""

    impressions: int
    examples: int
    missing: int
    doubled: int
    unknown: int


def joined(impressions: AbstractSet[str], times: Mapping[str, int]) -> Joined:
    """What became of the distinct valid ids that were sent. `times`: how often each id came as an example."""
    examples = sum(times.values())
    return Joined(
        impressions=len(impressions),
        examples=examples,
        missing=len(impressions - times.keys()),
        doubled=examples - len(times),
        unknown=len(times.keys() - impressions),
    )


class Witness:
    """Reads every committed example of the topic in a thread of its own.

    `came_at_seconds` has when each was read, since `started_at` (of time.monotonic).
    """

    def __init__(self, kafka_servers: str, topics: Topics, started_at: float) -> None:
        self.came_at_seconds: list[float] = []
        self._times = Counter[str]()
        self._started_at = started_at
        self._reader = ExampleReader(kafka_servers, topics, {})
        self._stop = threading.Event()
        self._empty_poll = threading.Event()
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
        for _ in range(2):  # the first of the two polls may have begun before the topic's last record
            self._empty_poll.clear()
            self._empty_poll.wait(seconds / 2)

    def joined(self, impressions: AbstractSet[str]) -> Joined:
        """What became of `impressions` up to now."""
        return joined(impressions, self._times)

    def _read_until_stopped(self) -> None:
        try:
            while not self._stop.is_set():
                records = self._reader.poll(_POLL_SECONDS)
                self.came_at_seconds += [time.monotonic() - self._started_at] * len(records)
                self._times.update(record.example.impression_id for record in records)
                if not records:
                    self._empty_poll.set()
        except GraftError as error:
            self._failure = error


class VersionExamples:
    """The number of examples that each published version has learnt; keeps versions that were pruned meanwhile."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.of: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the manifests that are new."""
        for version in self._registry.versions():
            if version not in self.of:
                with suppress(VersionError):  # pruned between the listing and the reading
                    self.of[version] = self._registry.load_manifest(version).examples


class Outcome(NamedTuple):
    """All that was counted; times in seconds since the stages started."""

    joined: Joined
    came_at_seconds: Sequence[float]
    """Of every example, in the order of the topic."""
    answers: Sequence[Answer]
    hits: Sequence[HitRate]
    scorer_swaps: int
    dead_letters: int
    examples_of_version: Mapping[str, int]
    restarts: Mapping[str, int]
    versions: Path
    """The registry of students."""
    logs: Path

    def freshness_seconds(self, share: float) -> float | None:
        """What `share` of the examples took at most from the topic to an answer; see the function `freshness_seconds`.

        None without an example, or where so many moved no answer.
        """
        seconds_N = freshness_seconds(self.came_at_seconds, self.examples_of_version, self.answers)
        quantile = float(np.quantile(seconds_N, share, method="higher")) if len(seconds_N) else np.inf
        return quantile if np.isfinite(quantile) else None

    @property
    def swaps(self) -> list[Swap]:
        """The changes of version that the client saw."""
        return swaps_seen(self.answers)


def freshness_seconds(
    came_at_seconds: Sequence[float], examples_of_version: Mapping[str, int], answers: Sequence[Answer]
) -> NDArray[np.float64]:
    """For each example, in the order in which it came: seconds until the first answer that it could have moved.

    An example comes as soon as the join has closed its window and committed it. Infinite where no answer came of a
    version that had learnt it. A version that the client saw, but whose examples are not known, is passed over.
    """
    came_at_N = np.asarray(came_at_seconds, np.float64)
    learnt = [(a.at_seconds, examples_of_version.get(a.version or "")) for a in answers]
    known = [(at, examples) for at, examples in learnt if examples is not None]
    answered_at_A = np.array([at for at, _ in known] + [np.inf])
    learnt_A = np.maximum.accumulate(np.array([examples for _, examples in known] + [np.iinfo(np.int64).max]))
    number_N = np.arange(len(came_at_N))
    return np.asarray(answered_at_A[np.searchsorted(learnt_A, number_N, side="right")] - came_at_N)
