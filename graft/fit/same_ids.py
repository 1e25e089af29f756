"""Whether the ids of two domains are the same ids: by what their tables tell of them, else by how many both have.

Equal numbers are no sign: both may number theirs from 1 on.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.spec import Entity
from graft.fit.source_log import SourceLog
from graft.fit.target import Target
from graft.init import names
from graft.init.values import texts

_LEAST_KNOWN = 0.05
_BEYOND_CHANCE = 3
_AGREE = 0.5
_FEWEST_TO_COMPARE = 10
_NUMBERED = r"^(?P<head>\D*)(?P<number>[0-9]{1,15})$"


class Sameness(NamedTuple):
    """Whether they are the same, and why."""

    is_same: bool
    why: str


def same_ids(entity: Entity, target: Target, source: SourceLog) -> Sameness:
    """Whether the target's users (or items) are the source's."""
    here = pc.unique(texts(target.log.rows[entity].combine_chunks()).cast(pa.string()))
    there = texts(source.ids[entity].distinct).cast(pa.string())
    known = float(pc.mean(pc.is_in(here, value_set=there)).as_py())
    told = f"the source has {known:.0%} of the {entity}s here"
    if known < _LEAST_KNOWN:
        return Sameness(False, told)
    agreement = _agreement(entity, target, source)
    if agreement is not None:
        column, share, is_same = agreement
        equal = f"{column} is equal in {share:.0%} of them"
        return Sameness(is_same, f"{told}, and {equal}{'' if is_same else ', about as by chance'}")
    by_chance = _density(there) if _is_numbered(here) else 0.0
    if known >= _BEYOND_CHANCE * by_chance:
        return Sameness(True, told)
    what = f"{told}, but ids that are numbers say nothing: name tables of both with a column in common"
    return Sameness(False, what)


def _agreement(entity: Entity, target: Target, source: SourceLog) -> tuple[str, float, bool] | None:
    """The column that agrees best over the ids that both have, by Cohen's kappa (1960); None without such a column.

    With the share of these ids for which it is equal, and whether kappa is at least `_AGREE`.
    """
    if entity not in target.tables or entity not in source.tables:
        return None
    here, there = target.tables[entity], source.tables[entity].rows
    place = pc.index_in(_text(here, f"{entity}_id"), value_set=_text(there, f"{entity}_id"))
    both = pc.is_valid(place)
    if pc.sum(both).as_py() < _FEWEST_TO_COMPARE:
        return None
    alike = {names.identifier(name): name for name in there.column_names}
    best: tuple[float, str, float] | None = None
    for name in here.column_names:
        other = alike.get(names.identifier(name))
        if name in (f"{entity}_id", "event_timestamp") or other is None:
            continue
        one = _text(here, name).filter(both)
        two = _text(there, other).take(place.filter(both))
        share = pc.mean(pc.equal(one, two)).as_py()
        chance = _chance(one, two)
        if share is not None and chance < 1 and (best is None or (share - chance) / (1 - chance) > best[0]):
            best = (share - chance) / (1 - chance), name, share
    return None if best is None else (best[1], best[2], best[0] >= _AGREE)


def _text(table: pa.Table, name: str) -> pa.Array:
    return texts(table[name].combine_chunks()).cast(pa.string())


def _chance(one: pa.Array, two: pa.Array) -> float:
    """How often a value of one is equal to a random one of the other."""
    counts = [pc.value_counts(values.drop_null()) for values in (one, two)]
    shares = [dict(zip(c.field("values").to_pylist(), c.field("counts").to_pylist(), strict=True)) for c in counts]
    total = sum(shares[0].values()) * sum(shares[1].values())
    return sum(count * shares[1].get(value, 0) for value, count in shares[0].items()) / total if total else 1.0


def _is_numbered(ids: pa.Array) -> bool:
    """Whether all ids are numbers, behind one text such as user_."""
    parts = pc.extract_regex(ids, _NUMBERED)
    return parts.null_count == 0 and len(pc.unique(parts.field("head"))) == 1


def _density(ids: pa.Array) -> float:
    """The share of the numbers between the least and the greatest id that are ids."""
    number = pc.struct_field(pc.extract_regex(ids, _NUMBERED), "number").drop_null().cast(pa.int64()).to_numpy()
    return float(len(np.unique(number)) / (number.max() - number.min() + 1)) if len(number) else 0.0
