"""Where a reader stands in each of its inputs, and the order in which it takes their records."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from runtime.errors import GraftError
from stream.events import Example

Key = TypeVar("Key")


class ArchivedLogits(NamedTuple):
    """The teacher's logits [T] that the cache had of an example when it was archived, and whose they are."""

    generation: str
    logits: list[float]


class Placed(Protocol):
    """An example, its place in the examples topic, and what an example log has of its teacher."""

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset in that partition."""
        ...

    @property
    def example(self) -> Example:
        """The joined impression."""
        ...

    @property
    def archived(self) -> ArchivedLogits | None:
        """None where it comes from the topic, or the log does not say."""
        ...


class OffsetError(GraftError):
    """A record came whose offset is not above the last one's: it was read twice, or out of order."""


class Positions(Mapping[Key, int]):
    """Input -> the offset of its first record that is not taken yet; 0 where it is absent. It moves on only.

    `place` names an input's topic and partition for the error.
    """

    def __init__(self, place: Callable[[Key], str], offsets: Mapping[Key, int]) -> None:
        self._place = place
        self._offsets = dict(offsets)

    def take(self, key: Key, offset: int) -> None:
        """Move past the record at `offset`; OffsetError when it is not above the last one that was taken."""
        following = self._offsets.get(key, 0)
        if offset < following:
            raise OffsetError(
                f"{self._place(key)}: offset {offset} is not above the last one, {following - 1}; if the topic was "
                "deleted and made anew, start again with a new stream.topic_prefix"
            )
        self._offsets[key] = offset + 1

    def __getitem__(self, key: Key) -> int:
        return self._offsets[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)


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
