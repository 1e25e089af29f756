"""Histories that a backfill scores: the teacher requests of the topic, an example log, the impressions of a file.

Every history has partitions, in which requests stand at offsets that rise; a file is one partition that counts its
rows. So one checkpoint fits all of them: per partition the next offset. It lies beside the logits that were put, and
what removes these removes it too.

key    graft:backfills:{project}:{generation}:{name}    JSON: bounds, the next offset per partition, and numbers
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from features.online.reader import FeatureReader
from features.spec import FeatureSpec
from runtime.compute import batched
from runtime.errors import DataLossError
from runtime.redis import connect, reaching
from stream.config import Topics
from stream.events import Impression
from stream.log.example_columns import Wanted
from stream.log.example_log import ExampleLog
from stream.log.request_columns import RequestColumns, Share, regrouped
from stream.log.requests import PastRequests, offsets_between
from stream.log.row_file import count_rows, share_of_rows
from teacher_cache.domain.request_scorer import BATCH_ROWS

Offsets = Mapping[int, int]
"""Offset by partition."""


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

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
        """The requests within the bounds, some at a time; of one partition in the order of their offsets."""
        ...


class Batch(NamedTuple):
    """Some requests, and per partition the offset after the last one that was read up to here."""

    requests: RequestColumns
    reached: Offsets


class Tracked:
    """The requests of a history from `position` on, which is per partition the offset after the last one given."""

    def __init__(self, history: History, bounds: Bounds, position: Offsets) -> None:
        self.bounds, self._start = bounds, dict(position)
        self._parts = history.read(bounds._replace(starts={**bounds.starts, **position}))

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """So many requests at a time, the last as many as are left; to be called once."""
        reached = self._start
        for requests in regrouped(self._parts, batch_rows):
            reached = reached | requests.ends()
            yield Batch(requests, reached)

    def done(self, position: Offsets) -> int:
        """Offsets behind a position."""
        return self.total - self.bounds.offsets_from(position)

    @property
    def total(self) -> int:
        """Offsets of the whole history."""
        return self.bounds.offsets_from({})


class AskedRows:
    """The teacher requests that the stream wrote from `since_ms` on and before `until_ms`, by the wall clock.

    Whoever makes it closes it.
    """

    def __init__(self, kafka_servers: str, topics: Topics, since_ms: int, until_ms: int | None) -> None:
        self._kafka_servers, self._topics = kafka_servers, topics
        self._since_ms, self._until_ms = since_ms, until_ms
        self._reading = ExitStack()

    def bounds(self) -> Bounds:
        """See `History.bounds`."""
        return Bounds(*offsets_between(self._kafka_servers, self._topics, self._since_ms, self._until_ms))

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
        """See `History.read`; what retention has deleted is passed over."""
        requests = PastRequests(self._kafka_servers, self._topics, bounds.starts, bounds.ends)
        self._reading.callback(requests.close)
        return map(RequestColumns.of, batched(requests, BATCH_ROWS))

    def close(self) -> None:
        """Close the connections of what was read."""
        self._reading.close()


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

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
        """See `History.read`. DataLossError: the log ends before the bounds do."""
        now = self._log.offsets_end()
        for partition, end in bounds.ends.items():
            if now.get(partition, 0) < end:
                raise DataLossError(
                    f"{self._log.folder}: partition {partition} ends at offset {now.get(partition, 0):,} and ended at "
                    f"{end:,} when the backfill began; name the whole log, or begin anew without --resume"
                )
        return self._log.read_requests(bounds.starts, Wanted(bounds.ends, self._since_ms, self._until_ms, self._share))


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

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
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

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
        """See `History.read`."""
        rows = share_of_rows(self._path, self._context_names, self._share, bounds.starts.get(0, 0))
        return _placed(rows, self._reader, self._spec)


def _placed(
    rows: Iterator[tuple[int, Impression]], reader: FeatureReader, spec: FeatureSpec
) -> Iterator[RequestColumns]:
    """Numbered impressions as requests with the features of now."""
    for some in batched(rows, BATCH_ROWS):
        users, items = [one.user_id for _, one in some], [one.item_id for _, one in some]
        contexts = [one.context for _, one in some]
        yield RequestColumns(
            partitions=[0] * len(some),
            offsets=[number for number, _ in some],
            impression_ids=[one.impression_id for _, one in some],
            user_ids=users,
            item_ids=items,
            event_times_ms=[one.event_time_ms for _, one in some],
            contexts=contexts,
            spec_ids=[spec.spec_id] * len(some),
            features=spec.rows_of(reader.read(users, items, contexts)),
        )


def within(event_time_ms: int, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether a time is not before `since_ms` and before `until_ms`; None: no bound."""
    return (since_ms is None or event_time_ms >= since_ms) and (until_ms is None or event_time_ms < until_ms)


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")

    starts: dict[int, int]
    ends: dict[int, int]
    position: dict[int, int]
    numbers: dict[str, int | float] = {}


class Saved(NamedTuple):
    """All before `position` is put; `numbers` are the saver's own."""

    bounds: Bounds
    position: Offsets
    numbers: Mapping[str, float]


class Checkpoint:
    """The progress of the backfill `name` of one generation; kept for `ttl_seconds` after the last `save`.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(self, redis_url: str, generation: str, name: str, ttl_seconds: int) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._key = f"graft:backfills:{generation}:{name}"
        self._ttl_seconds = ttl_seconds

    def load(self) -> Saved | None:
        """What the last `save` was given; None where there is none that can be read."""
        with reaching(self._url):
            found = self._client.get(self._key)
        try:
            saved = _Stored.model_validate_json(found) if isinstance(found, bytes) else None
        except ValidationError:
            return None
        return None if saved is None else Saved(Bounds(saved.starts, saved.ends), saved.position, saved.numbers)

    def save(self, bounds: Bounds, position: Offsets, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Keep these, see `Saved`."""
        value = json.dumps({**bounds._asdict(), "position": dict(position), "numbers": dict(numbers)})
        with reaching(self._url):
            self._client.set(self._key, value, ex=self._ttl_seconds)

    def remove(self) -> None:
        """The backfill is done."""
        with reaching(self._url):
            self._client.unlink(self._key)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
