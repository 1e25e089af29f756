"""The items of a partition's last impressions: those that negatives are drawn from, with how often each was shown.

An impression is counted when the join takes it, in the order of its partition, and leaves again when `capacity` later
ones have come. So what is known when an impression comes follows from the impressions before it in its partition alone,
whatever the steps, pauses and restarts were. It is saved in segments of many, of which only the newest one still
changes.
"""

import json
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping

from stream.join.log_cleaner import Entry

CAPACITY = 50_000
"""Impressions whose items are known, in each partition: a few megabytes."""

_SEGMENT_IMPRESSIONS = 128  # the newest segment is written anew with each change, a few kilobytes at most
_SEGMENT = "known"
_MOST_TRIES = 200  # of one draw: of items that all were shown a thousand times, the square root accepts one of 32
_NUMBERS = 2.0**64


class KnownItems:
    """The items of the last `capacity` impressions, as JSON text: the number 1 and the text "1" are two.

    `changes()` gives them as entries.
    """

    def __init__(self, capacity: int | None = None) -> None:
        """Without a `capacity` it is `CAPACITY`."""
        self._capacity = capacity or CAPACITY
        self._segments: dict[int, list[str]] = {}
        """Of each impression its item. The first segment may begin with some that are forgotten."""
        self._first = self._next = 0
        """The numbers of the oldest impression that is known, and of the next one."""
        self._counts: Counter[str] = Counter()
        self._items: list[str] = []
        """Each item once, in the order of the texts: the same after a restart."""
        self._dirty: dict[int, None] = {}

    def __len__(self) -> int:
        """Impressions."""
        return self._next - self._first

    def __contains__(self, item: str) -> bool:
        return item in self._counts

    def others(self, item: str) -> int:
        """How many other items there are."""
        return len(self._items) - (item in self)

    def add(self, item: str) -> None:
        """Count an impression of an item."""
        segment = self._next // _SEGMENT_IMPRESSIONS
        self._segments.setdefault(segment, []).append(item)
        self._next += 1
        self._count(item)
        self._dirty[segment] = None
        if len(self) > self._capacity:
            self._drop_oldest()

    def drawn(self, item: str, count: int, power: float, numbers: Iterator[int]) -> list[str]:
        """At most `count` other items than this one, none twice; each by its impressions to the power in [0, 1].

        `numbers`: of 64 bits, drawn evenly. Fewer where there are fewer, or where chance finds no more.
        """
        drawn = {item: None}
        wanted = 1 + min(count, self.others(item))
        for _ in range(_MOST_TRIES * count):
            if len(drawn) >= wanted:
                break
            if (other := self._draw(power, next(numbers), next(numbers))) is not None:
                drawn[other] = None
        return list(drawn)[1:]

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call."""
        changed = [f"{_SEGMENT}:{segment}" for segment in self._dirty]
        self._dirty.clear()
        return [(key, self.entry(key)) for key in changed]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry as of the last `changes()`; None when it is gone, or none of these."""
        kind, _, number = key.partition(":")
        segment = self._segments.get(int(number)) if kind == _SEGMENT else None
        return json.dumps(segment, separators=(",", ":")).encode() if segment else None

    def restore(self, entries: Mapping[str, bytes]) -> None:
        """Take back the entries that all `changes()` add up to."""
        saved = {int(key.partition(":")[2]): key for key in entries if key.startswith(f"{_SEGMENT}:")}
        for number in sorted(saved):
            # An earlier release saved pairs: the value of a feature by which items were drawn, and the item.
            impressions = json.loads(entries[saved[number]])
            self._segments[number] = [one if isinstance(one, str) else one[1] for one in impressions]
        if not saved:
            return
        self._next = max(saved) * _SEGMENT_IMPRESSIONS + len(self._segments[max(saved)])
        self._first = max(min(saved) * _SEGMENT_IMPRESSIONS, self._next - self._capacity)
        for number in range(self._first, self._next):
            self._count(self._item_of(number))

    def _count(self, item: str) -> None:
        self._counts[item] += 1
        if self._counts[item] == 1:
            insort(self._items, item)

    def _draw(self, power: float, place: int, chance: int) -> str | None:
        """An item by its impressions to the power; None where the draw is to be made again."""
        if power == 0:
            return self._items[place % len(self._items)]
        item = self._item_of(self._first + place % len(self))
        return item if chance < _NUMBERS * self._counts[item] ** (power - 1) else None

    def _item_of(self, number: int) -> str:
        segment, place = divmod(number, _SEGMENT_IMPRESSIONS)
        return self._segments[segment][place]

    def _drop_oldest(self) -> None:
        item = self._item_of(self._first)
        self._counts[item] -= 1
        if not self._counts[item]:
            del self._counts[item]
            del self._items[bisect_left(self._items, item)]
        self._first += 1
        if self._first % _SEGMENT_IMPRESSIONS == 0:
            gone = self._first // _SEGMENT_IMPRESSIONS - 1
            del self._segments[gone]
            self._dirty[gone] = None
