"""Drawn negatives: beside an impression rows of its user with other items that were known by then.

A log of positives alone says nothing of what was not taken. With `[sampling] drawn_negatives` each impression gets so
many rows with items that the partition has shown before; they become examples with negative labels if the impression
turns out to be a positive one. Which items follows from a hash of the impression's id, and from the items known by then
(stream/join/known_items.py): a replay, a kill or a restart draws the same ones.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import count
from math import log

import mmh3

from stream.events import Example, Sampled, TeacherRequest
from stream.join.known_items import KnownItems
from stream.join.sampling import SamplingConfig
from stream.tasks import TaskSpec

_SEED = 0x0D3A  # so that the draw has nothing to do with other hashes of the same id
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
    digest = mmh3.hash_bytes(impression_id.encode("utf-8", "surrogatepass"), _SEED).hex()
    return f"drawn-{digest}-{number}"


def place_among(drawn: int, impression_id: str) -> int:
    """How many of its drawn rows come before an impression's own; each number from 0 to all is as likely."""
    return mmh3.hash64(impression_id.encode("utf-8", "surrogatepass"), _PLACE_SEED, signed=False)[0] % (drawn + 1)


def _numbers(impression_id: str) -> Iterator[int]:
    """Numbers of 64 bits that follow from the id alone."""
    for number in count():
        yield from mmh3.hash64(f"{number}/{impression_id}".encode("utf-8", "surrogatepass"), _SEED, signed=False)
