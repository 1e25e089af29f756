"""Records of the examples topic, as the learner takes them, and the offsets after them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from stream.events import Example
from stream.positions import Positions


class Record(Protocol):
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


def offsets_after(offsets: Mapping[int, int], records: Sequence[Record]) -> dict[int, int]:
    """The next offset of each partition once `records` are learnt; OffsetError when their offsets do not rise."""
    positions = Positions(lambda partition: f"the examples topic, partition {partition}", offsets)
    for record in records:
        positions.take(record.partition, record.offset)
    return dict(positions)
