"""Sampling: which negatives of a log become examples, and which are drawn for a log that has none.

A log's own: an example is a negative when no binary task of it has the label 1. Whether it is kept follows from a hash
of its impression's id alone: a replay, a restart or another number of partitions keeps the same ones, and of a smaller
share all are among those of a larger one.

Drawn: with `drawn_negatives` each impression gets so many rows of its user with items that its partition has shown
before; they become examples with negative labels if the impression turns out to be a positive one. Which items follows
from a hash of the impression's id, and from the items known by then: an impression is counted when the join takes it,
in the order of its partition, and leaves again when `capacity` later ones have come. So a replay, a kill or a restart
draws the same ones. Known items are saved in segments of many, of which only the newest one still changes.
"""

import json
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import log

import mmh3
from pydantic import Field

from runtime.frozen_model import FrozenModel
from stream.events import Example, Sampled, TeacherRequest
from stream.join.log_cleaner import Entry
from stream.tasks import TaskSpec

_SEED = 0x5A3D  # so that the draw has nothing to do with other hashes of the same id, such as that of its partition
_HASHES = 2**32

MOST_DRAWN = 50
"""Negatives that may be drawn beside one impression."""


class SamplingConfig(FrozenModel):
    """Which negatives become examples; see docs/sampling.md. Without this table every impression does."""

    one_negative_of: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="one of this many negatives (impressions without a 1 in any binary task) becomes an example and "
        "stands for all of them; 1: each becomes one",
    )
    drawn_negatives: int = Field(
        default=0,
        ge=0,
        le=MOST_DRAWN,
        description="negatives that are drawn for each impression with a 1 in a binary task: its user with other "
        "items that were shown before; for a log that has only positives. An impression whose own item was not shown "
        "before is left out",
    )
    drawn_by_popularity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="the chance that an item is drawn is proportional to how often it was shown lately, to this "
        "power; 0: equal for all items; 1: as often as they are shown",
    )

    @property
    def recipe(self) -> str:
        """How negatives are drawn, in words."""
        return f"popularity^{self.drawn_by_popularity:g}" if self.drawn_by_popularity else "uniform"


class Sampling:
    """Keeps a share of the negatives; where negatives are drawn, only what stands beside some."""

    def __init__(self, config: SamplingConfig, tasks: Sequence[TaskSpec]) -> None:
        self._one_of, self._draws = config.one_negative_of, config.drawn_negatives > 0
        self._binary = [task.name for task in tasks if task.kind == "binary"]

    def kept(self, example: Example, *, is_alone: bool) -> Example | None:
        """The example with its weight; None where sampling leaves it out. What was drawn stays.

        `is_alone`: nothing was drawn beside it. With nothing to be compared with it would say yes of every new item.
        """
        if self._draws and is_alone:
            return None
        if self._one_of == 1 or example.sampled or any(example.labels[name] for name in self._binary):
            return example
        if not is_drawn(example.impression_id, self._one_of):
            return None
        return Example.of_checked({**example.__dict__, "weight": self._one_of})


def is_drawn(impression_id: str, one_of: float) -> bool:
    """Whether this is the one impression of so many that is kept if it is a negative."""
    number = mmh3.hash(impression_id.encode("utf-8", "surrogatepass"), _SEED, signed=False)
    return number * one_of < _HASHES


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


_DRAWN_SEED = 0x0D3A  # so that the draw has nothing to do with other hashes of the same id
_PLACE_SEED = 0x0D3B


class Drawing:
    """Draws rows beside impressions, as `[sampling]` says; nothing without `drawn_negatives`."""

    def __init__(self, config: SamplingConfig, tasks: Sequence[TaskSpec]) -> None:
        self._count, self._power = config.drawn_negatives, config.drawn_by_popularity
        self._recipe = config.recipe
        self._labels: dict[str, float | None] = {t.name: 0.0 if t.kind == "binary" else None for t in tasks}

    def beside(self, request: TeacherRequest, known: KnownItems) -> list[Example]:
        """The rows drawn for an impression that the join has just taken; then its item is known, too.

        Their features are empty lists, which are to be filled before the examples leave the step. Fewer where fewer
        other items are known; none where the impression's own item is not: no drawn row could have had it, so a
        learner would find that a new item is always a yes.
        """
        if not self._count:
            return []
        item, numbers = json.dumps(request.item_id), _numbers(request.impression_id)
        drawn = known.drawn(item, self._count, self._power, numbers) if item in known else []
        # Added to the learnt log odds, they are those of an item among all that are known.
        log_odds = log(len(drawn) / known.others(item)) if drawn and self._power == 0 else None
        sampled = Sampled(of=request.impression_id, recipe=self._recipe, log_odds=log_odds)
        known.add(item)
        return [self._example(request, number, one, sampled) for number, one in enumerate(drawn, 1)]

    def _example(self, request: TeacherRequest, number: int, item: str, sampled: Sampled) -> Example:
        changed = {
            "impression_id": drawn_id(request.impression_id, number),
            "item_id": json.loads(item),
            "features": [],
            "labels": self._labels,
            "weight": 1,
            "sampled": sampled,
        }
        return Example.of_checked({**request.__dict__, **changed})


def drawn_id(impression_id: str, number: int) -> str:
    """The id of the row that was drawn as such a number for an impression, from 1 on."""
    digest = mmh3.hash_bytes(impression_id.encode("utf-8", "surrogatepass"), _DRAWN_SEED).hex()
    return f"drawn-{digest}-{number}"


def place_among(drawn: int, impression_id: str) -> int:
    """How many of its drawn rows come before an impression's own; each number from 0 to all is as likely."""
    return mmh3.hash64(impression_id.encode("utf-8", "surrogatepass"), _PLACE_SEED, signed=False)[0] % (drawn + 1)


def _numbers(impression_id: str) -> Iterator[int]:
    """Numbers of 64 bits that follow from the id alone."""
    for number in count():
        yield from mmh3.hash64(f"{number}/{impression_id}".encode("utf-8", "surrogatepass"), _DRAWN_SEED, signed=False)
