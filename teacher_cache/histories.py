"""Histories that a backfill scores: the teacher requests of the topic, an example log, the impressions of a file.

Every history has partitions, in which requests stand at offsets that rise; a file is one partition that counts its
rows. So one checkpoint fits all of them: per partition the next offset.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from features.lookup import FeatureReader
from features.spec import FeatureSpec
from stream.config import Topics
from stream.events import Impression, TeacherRequest
from stream.example_log import ExampleLog
from stream.requests import offsets_between, requests_between
from teacher_cache.request_scorer import BATCH_ROWS

Offsets = Mapping[int, int]
"""Offset by partition."""


class Placed(NamedTuple):
    """A request and where it stands in its history."""

    partition: int
    offset: int
    request: TeacherRequest


class Bounds(NamedTuple):
    """Where a history begins, and the offsets before which it ends, per partition."""

    starts: dict[int, int]
    ends: dict[int, int]

    def offsets_from(self, position: Offsets) -> int:
        """The offsets that are left from `position` on; not each of them has a request."""
        return sum(max(0, end - position.get(p, self.starts.get(p, 0))) for p, end in self.ends.items())


class History(Protocol):
    """What a backfill reads, always in the same order."""

    def bounds(self) -> Bounds:
        """As of now."""
        ...

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """The requests within the bounds; of one partition in the order of their offsets."""
        ...


class Tracked(Iterator[TeacherRequest]):
    """The requests of a history from `position` on, and per partition the offset after the last one given.

    `passed` gets the requests before `position`, where these are wanted; else they are not read.
    """

    def __init__(
        self,
        history: History,
        bounds: Bounds,
        position: Offsets,
        passed: Callable[[TeacherRequest], object] | None = None,
    ) -> None:
        self.bounds, self.position, self._passed = bounds, dict(position), passed
        first = bounds if passed is not None else bounds._replace(starts={**bounds.starts, **position})
        self._placed = history.read(first)

    def __next__(self) -> TeacherRequest:
        for partition, offset, request in self._placed:
            if offset >= self.position.get(partition, 0):
                self.position[partition] = offset + 1
                return request
            if self._passed is not None:
                self._passed(request)
        raise StopIteration

    @property
    def done(self) -> int:
        """Offsets behind `position`."""
        return self.total - self.bounds.offsets_from(self.position)

    @property
    def total(self) -> int:
        """Offsets of the whole history."""
        return self.bounds.offsets_from({})


class AskedRows:
    """The teacher requests that the stream wrote from `since_ms` on and before `until_ms`, by the wall clock."""

    def __init__(self, kafka_servers: str, topics: Topics, since_ms: int, until_ms: int | None) -> None:
        self._kafka_servers, self._topics = kafka_servers, topics
        self._since_ms, self._until_ms = since_ms, until_ms

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds(*offsets_between(self._kafka_servers, self._topics, self._since_ms, self._until_ms))

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """See `History.read`; what retention has deleted is passed over."""
        found = requests_between(self._kafka_servers, self._topics, bounds.starts, bounds.ends)
        return (Placed(*one) for one in found)


class LoggedExamples:
    """The examples of an example log whose impressions came from `since_ms` on and before `until_ms`."""

    def __init__(self, log: ExampleLog, since_ms: int | None, until_ms: int | None) -> None:
        self._log = log
        self._since_ms, self._until_ms = since_ms, until_ms

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds({}, self._log.offsets_end())

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """See `History.read`."""
        for records in self._log.read(bounds.starts):
            for partition, offset, example in records:
                if offset < bounds.ends.get(partition, 0) and within(
                    example.event_time_ms, self._since_ms, self._until_ms
                ):
                    fields = {name: value for name, value in example.__dict__.items() if name != "labels"}
                    yield Placed(partition, offset, TeacherRequest.of_checked(fields))


class ShownRows:
    """Rows as impressions, with the features of now; of impressions, those from `since_ms` on and before `until_ms`."""

    def __init__(
        self,
        impressions: Callable[[], Iterable[Impression]],
        reader: FeatureReader,
        spec: FeatureSpec,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        self._impressions, self._reader, self._spec = impressions, reader, spec
        self._since_ms, self._until_ms = since_ms, until_ms

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds({0: 0}, {0: sum(1 for _ in self._impressions())})

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """See `History.read`."""
        start, end = bounds.starts.get(0, 0), bounds.ends[0]
        rows = (
            (start + n, impression)
            for n, impression in enumerate(islice(self._impressions(), start, end))
            if within(impression.event_time_ms, self._since_ms, self._until_ms)
        )
        while some := list(islice(rows, BATCH_ROWS)):
            requests = self._requests([impression for _, impression in some])
            yield from (Placed(0, n, request) for (n, _), request in zip(some, requests, strict=True))

    def _requests(self, impressions: list[Impression]) -> list[TeacherRequest]:
        users, items = [one.user_id for one in impressions], [one.item_id for one in impressions]
        rows = self._spec.rows_of(self._reader.read(users, items, [one.context for one in impressions]))
        return [
            TeacherRequest(**dict(impression), spec_id=self._spec.spec_id, features=features)
            for impression, features in zip(impressions, rows, strict=True)
        ]


def within(event_time_ms: int, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether a time is not before `since_ms` and before `until_ms`; None: no bound."""
    return (since_ms is None or event_time_ms >= since_ms) and (until_ms is None or event_time_ms < until_ms)
