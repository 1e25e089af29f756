"""Which negatives must have been drawn, by a reference that reads what came out and knows no steps and no state."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stream.join.sampling import SamplingConfig, _numbers, drawn_id

BINARY = ("like", "click")
"""The binary tasks of the pairs that this is asked of."""

Record = Mapping[str, Any]
"""An example or a teacher request as JSON has it."""


class Shown(NamedTuple):
    """An impression that was joined."""

    impression_id: str
    item_id: int | str


def drawn_faults(
    sampling: SamplingConfig,
    capacity: int,
    partitions: Collection[Sequence[Shown]],
    examples: Mapping[str, Record],
    drawn: Sequence[Record],
    requested: Collection[str],
) -> Iterator[str]:
    """What is wrong with the drawn rows, in words; `partitions` have what was joined in the order of its offsets.

    `examples` by id: of what was shown. `requested`: the ids of all teacher requests.
    """
    expected = {name: one for shown in partitions for name, one in rows_of(sampling, capacity, shown)}
    joined = {one.impression_id for shown in partitions for one in shown}
    alone = alone_of(sampling, capacity, partitions)
    yield from (f"{one} is an example, and nothing was drawn beside it" for one in alone & examples.keys())
    positive = {name for name, example in examples.items() if 1.0 in _binary(example)}
    wanted = {name: one for name, one in expected.items() if one[0] in positive}
    found = Counter(one["impression_id"] for one in drawn)
    yield from (f"{name} was drawn {count} times" for name, count in found.items() if count != 1)
    yield from (f"{name} was to be drawn for {wanted[name][0]} and is no example" for name in wanted.keys() - found)
    yield from (f"{name} is an example, and was not to be drawn" for name in found.keys() - wanted)
    yield from (f"{name} was drawn and not requested" for name in expected.keys() - set(requested))
    yield from (f"{name} was requested, not drawn" for name in set(requested) - expected.keys() - joined)
    for one in drawn:
        if one["impression_id"] not in wanted:
            continue
        of, item = wanted[one["impression_id"]]
        like = {**examples[of], **{name: one[name] for name in ("impression_id", "sampled", "features")}}
        like |= {"item_id": item, "labels": {task: 0.0 if task in BINARY else None for task in one["labels"]}}
        if one != like or one["sampled"]["of"] != of:
            yield f"a drawn row is {one}, not {like}"
        elif one["user_id"] not in one["features"] or item not in one["features"]:
            yield f"a drawn row has the features {one['features']}"


def alone_of(sampling: SamplingConfig, capacity: int, partitions: Collection[Sequence[Shown]]) -> set[str]:
    """The impressions beside which nothing is drawn, although negatives are drawn: they are no examples."""
    found = set[str]()
    for shown in partitions if sampling.drawn_negatives else ():
        known = Counter[str]()
        for n, one in enumerate(shown):
            if n > capacity:
                known -= Counter({json.dumps(shown[n - capacity - 1].item_id): 1})
            own = json.dumps(one.item_id)
            if own not in known or len(known) == 1:
                found.add(one.impression_id)
            known[own] += 1
    return found


def _binary(example: Record) -> set[float]:
    return {label for task, label in example["labels"].items() if task in BINARY}


def rows_of(sampling: SamplingConfig, capacity: int, shown: Sequence[Shown]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """The id of each row that is drawn in a partition, the impression that it stands beside, and its item."""
    for n, one in enumerate(shown):
        known = [json.dumps(other.item_id) for other in shown[max(0, n - capacity) : n]]
        own, found = json.dumps(one.item_id), dict[str, None]()
        if own not in known:
            continue
        others = sorted(set(known) - {own})
        numbers = _numbers(one.impression_id)
        while len(found) < min(sampling.drawn_negatives, len(others)):
            place, chance = next(numbers), next(numbers)
            if sampling.drawn_by_popularity:
                item = known[place % len(known)]
                if chance >= 2.0**64 * known.count(item) ** (sampling.drawn_by_popularity - 1):
                    continue
            else:
                item = sorted(set(known))[place % len(set(known))]
            if item != own:
                found[item] = None
        for number, item in enumerate(found, 1):
            yield drawn_id(one.impression_id, number), (one.impression_id, json.loads(item))
