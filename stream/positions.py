"""Where an example stands in its topic, and how far a reader has come in each of its inputs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from runtime.errors import GraftError
from stream.events import Example

Key = TypeVar("Key")


class Placed(Protocol):
    """An example and its place in the examples topic."""

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
