"""Histories that a backfill scores: the teacher requests of the topic, an example log, the impressions of a file.

Every history has partitions, in which requests stand at offsets that rise; a file is one partition that counts its
rows. So one checkpoint fits all of them: per partition the next offset.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol

from features.lookup import FeatureReader
from features.spec import FeatureSpec
from stream.config import Topics
from stream.events import Impression, TeacherRequest
from stream.example_log import ExampleLog
from stream.examples import ExampleRecord
from stream.requests import offsets_between, requests_between
from stream.row_file import count_rows, share_of_rows
from stream.share import Share
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
    """The examples of an example log whose impressions came from `since_ms` on and before `until_ms`.

    With a `share` those of its users alone, in the same order.
    """

    def __init__(self, log: ExampleLog, since_ms: int | None, until_ms: int | None, share: Share | None = None) -> None:
        self._log, self._share = log, share
        self._since_ms, self._until_ms = since_ms, until_ms

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds({}, self._log.offsets_end())

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """See `History.read`."""
        for partition, offset, example in self._records(bounds.starts):
            if offset < bounds.ends.get(partition, 0) and within(example.event_time_ms, self._since_ms, self._until_ms):
                fields = {name: getattr(example, name) for name in TeacherRequest.model_fields}
                yield Placed(partition, offset, TeacherRequest.of_checked(fields))

    def _records(self, starts: Offsets) -> Iterator[ExampleRecord]:
        if self._share is not None:
            return self._log.read_share(starts, self._share)
        return chain.from_iterable(self._log.read(starts))


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
        return _placed(rows, self._reader, self._spec)


class ShareOfRows:
    """The rows of a file that are a share's, with the features of now; their offsets are the numbers of the rows."""

    def __init__(
        self, path: Path, context_names: Collection[str], share: Share, reader: FeatureReader, spec: FeatureSpec
    ) -> None:
        self._path, self._context_names, self._share = path, context_names, share
        self._reader, self._spec = reader, spec

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds({0: 0}, {0: count_rows(self._path)})

    def read(self, bounds: Bounds) -> Iterator[Placed]:
        """See `History.read`."""
        rows = share_of_rows(self._path, self._context_names, self._share, bounds.starts.get(0, 0))
        return _placed(rows, self._reader, self._spec)


def _placed(rows: Iterator[tuple[int, Impression]], reader: FeatureReader, spec: FeatureSpec) -> Iterator[Placed]:
    """Numbered impressions as requests with the features of now."""
    while some := list(islice(rows, BATCH_ROWS)):
        users, items = [one.user_id for _, one in some], [one.item_id for _, one in some]
        features = spec.rows_of(reader.read(users, items, [one.context for _, one in some]))
        for (number, one), values in zip(some, features, strict=True):
            yield Placed(0, number, TeacherRequest(**dict(one), spec_id=spec.spec_id, features=values))


def within(event_time_ms: int, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether a time is not before `since_ms` and before `until_ms`; None: no bound."""
    return (since_ms is None or event_time_ms >= since_ms) and (until_ms is None or event_time_ms < until_ms)
