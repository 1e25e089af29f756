"""The offsets after examples that are learnt."""

from collections.abc import Mapping, Sequence

from stream.positions import Placed, Positions


def offsets_after(offsets: Mapping[int, int], records: Sequence[Placed]) -> dict[int, int]:
    """The next offset of each partition once `records` are learnt; OffsetError when their offsets do not rise."""
    positions = Positions(lambda partition: f"the examples topic, partition {partition}", offsets)
    for record in records:
        positions.take(record.partition, record.offset)
    return dict(positions)
