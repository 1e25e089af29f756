"""Reading several inputs in event-time order, by Kafka Streams' rule."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, TypeVar

Source = TypeVar("Source")
Record = TypeVar("Record")


class Merge(Generic[Source, Record]):
    """Buffers of several sources; records leave in event-time order, each source's own order kept.

    A record is taken only when every source has a buffered one or is caught up (has nothing more to give now), so a
    slow source is waited for. Equal times leave in the order of `sources`.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._buffers: dict[Source, deque[tuple[int, Record]]] = {source: deque() for source in sources}

    def add(self, source: Source, event_time_ms: int, record: Record) -> None:
        """Append a record to its source's buffer."""
        self._buffers[source].append((event_time_ms, record))

    def buffered(self, source: Source) -> int:
        """Records of a source that wait."""
        return len(self._buffers[source])

    def take(self, caught_up: Collection[Source]) -> Iterator[Record]:
        """The records that can leave now, in their order."""
        while True:
            first: deque[tuple[int, Record]] | None = None
            for source, buffer in self._buffers.items():
                if not buffer:
                    if source not in caught_up:
                        return
                elif first is None or buffer[0][0] < first[0][0]:
                    first = buffer
            if first is None:
                return
            yield first.popleft()[1]
