"""Which features source and target share, by name and type, and the source's values of them as a teacher's inputs.

Shapes: V values of a feature, W an input's width.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.spec import Entity
from graft.fit.design import DesignInput, InputTable
from graft.fit.domain import Domain, DomainFeature
from graft.init import names
from graft.init.columns import numbers, texts

FEWEST = 5
"""Rows that an item, a category or an id needs for the teacher to know it; a feature of users needs so many users."""

_MOST_CODES = 200_000
_LEAST_KNOWN = 0.05  # of the target's values or ids must be known to the source
_LEAST_LIKE = 0.01  # of the source's numbers must lie within the target's range: else they are of another unit
_FEWEST_IN_BOTH = 10  # ids in both tables, for their columns to be compared
_AGREE = 0.5  # Cohen's kappa (1960) from which on a column's values agree
_BEYOND_CHANCE = 3
_NUMBERED = r"^(?P<head>\D*)(?P<number>[0-9]{1,15})$"
_TABLES: dict[str, InputTable] = {"user": "users", "item": "items", "": "rows"}
_ARTICLES = {"int": "an integer", "float": "a number", "str": "a text"}


class Shared(NamedTuple):
    """A feature that both have. `codes`: value -> code of a category or an id. `low`, `high`: of numbers at the source.

    `known`: the share of the target's values that the source has.
    """

    feature: DomainFeature
    input: DesignInput
    values: NDArray[Any]
    known: float
    why: str
    codes: dict[str, int]
    low: float = 0.0
    high: float = 0.0

    def row(self) -> list[str]:
        """Its row in the table for people."""
        numbers_ = "number" if self.feature.kind == "number" else f"{self.input.width} numbers"
        form = f"{len(self.codes):,} codes" if self.codes else numbers_
        return [self.feature.name, self.input.name, form, f"{self.known:.0%}", self.why]


class Unshared(NamedTuple):
    """A feature of the target that is no input, and why."""

    name: str
    why: str


class _Unfit(Exception):  # noqa: N818 - no error: it ends the reading of one feature
    """Why a feature that is called alike is not shared."""


def share(target: Domain, source: Domain) -> tuple[list[Shared], list[Unshared]]:
    """Every feature of the target, shared or not, the ids first."""
    shared: dict[str, Shared] = {}
    unshared: list[Unshared] = []
    for found in [*_shared_ids(target, source), *_shared_features(target, source)]:
        if isinstance(found, Unshared):
            unshared.append(found)
        elif found.input.name in shared:
            unshared.append(Unshared(found.feature.name, "another feature is called so"))
        else:
            shared[found.input.name] = found
    return list(shared.values()), unshared


def _shared_ids(target: Domain, source: Domain) -> Iterator[Shared | Unshared]:
    entities: tuple[Entity, ...] = ("user", "item")
    for entity in entities:
        name = f"{entity}_id"
        is_same, why = same_ids(entity, target, source)
        if not is_same:
            yield Unshared(name, why)
            continue
        ids = source.ids[entity]
        feature = DomainFeature(name, entity, "codes", "str", target.ids[entity].distinct)
        try:
            yield _codes(feature, ids.distinct, ids.counts(), why)
        except _Unfit as reason:
            yield Unshared(name, str(reason))


def _shared_features(target: Domain, source: Domain) -> Iterator[Shared | Unshared]:
    for feature in sorted(target.features, key=lambda feature: feature.name):
        try:
            yield _shared(feature, source)
        except _Unfit as reason:
            yield Unshared(feature.name, str(reason))


def _shared(feature: DomainFeature, source: Domain) -> Shared:
    others = [other for other in source.features if other.entity == feature.entity]
    if feature.entity and not others:
        raise _Unfit(f"the source has no table of {feature.entity}s")
    other = next((other for other in others if _is_alike(other.bare, feature.bare)), None)
    if other is None:
        raise _Unfit(f"no {'column' if feature.entity else 'context'} there is called so")
    values, why = source.values_of(other), f"{other.bare} there, by name and type"
    if feature.kind == "vector":
        return _vector(feature, values, other.words, why)
    if feature.kind == "number":
        if other.dtype not in ("int", "float"):
            raise _Unfit(f"a number here, {other.bare} there is {_ARTICLES.get(other.dtype, 'a list')}")
        return _number(feature, values, why)
    if other.dtype != feature.dtype:
        here, there = (_ARTICLES.get(dtype, "a list") for dtype in (feature.dtype, other.dtype))
        raise _Unfit(f"{here} here, {other.bare} there is {there}")
    weight_V = source.ids["item"].counts() if feature.entity == "item" else np.ones(len(values), np.int64)
    return _codes(feature, values, weight_V, why)


def _is_alike(name: str, other: str) -> bool:
    return name == other or names.likeness(name, other) == 1.0


def _number(feature: DomainFeature, values: Any, why: str) -> Shared:
    """Numbers; a missing one is their mean. The teacher is asked within the range of the source alone."""
    value_V = _floats(values)
    there, here = (known[~np.isnan(known)] for known in (value_V, _floats(feature.values)))
    if not len(there) or there.min() == there.max():
        raise _Unfit("the same there in every row" if len(there) else "empty there")
    if not len(here):
        raise _Unfit("empty here")
    low, high = float(there.min()), float(there.max())
    spans = f"{here.min():g} to {here.max():g} here, {low:g} to {high:g} there"
    known = float(((here >= low) & (here <= high)).mean())
    if known < _LEAST_KNOWN or float(((there >= here.min()) & (there <= here.max())).mean()) < _LEAST_LIKE:
        raise _Unfit(f"{spans}: not the same unit?")
    default = float(f"{there.mean():.4g}")
    filled_V = np.nan_to_num(value_V, nan=default).astype(np.float32)
    return Shared(feature, _input(feature, default=default), filled_V, known, f"{why}; {spans}", {}, low, high)


def _floats(values: Any) -> NDArray[np.float64]:
    array: NDArray[np.float64] = _whole(numbers(values)).to_numpy(zero_copy_only=False).astype(np.float64)
    return array


def _vector(feature: DomainFeature, values: Any, words: tuple[str, ...], why: str) -> Shared:
    """Lists of numbers; of words they are put into the order of the target's."""
    if not pa.types.is_list(values.type) and not pa.types.is_fixed_size_list(values.type):
        raise _Unfit("a list here, none there")
    if bool(words) != bool(feature.words):
        sides = "words with | between there, a list of numbers here" if words else "words here, numbers there"
        raise _Unfit(sides)
    width = _width(feature.values)
    if not words and _width(values) != width:
        raise _Unfit(f"lists of {width} numbers here, of {_width(values)} there")
    zeros = [0.0] * (len(words) or width)
    value_VW = np.array([zeros if row is None else row for row in values.to_pylist()], np.float32)
    value_VW = np.nan_to_num(value_VW.reshape(len(values), -1))
    if words:
        both = [word for word in feature.words if word in words]
        if not both:
            raise _Unfit(f"no word in common: {', '.join(words[:3])} there, {', '.join(feature.words[:3])} here")
        why = f"{why}; {len(both)} of {len(feature.words)} words are known there"
        unknown_V1 = np.zeros((len(value_VW), 1), np.float32)
        place = {word: i for i, word in enumerate(words)}
        value_VW = np.hstack([value_VW, unknown_V1])[:, [place.get(word, -1) for word in feature.words]]
    if not value_VW.any():
        raise _Unfit("empty there")
    return Shared(feature, _input(feature, width=value_VW.shape[1]), value_VW, 1.0, why, {})


def _width(values: Any) -> int:
    lengths = pc.unique(pc.list_value_length(values.drop_null())).to_pylist() if pa.types.is_nested(values.type) else []
    return int(lengths[0]) if len(lengths) == 1 else 0


def _codes(feature: DomainFeature, values: Any, weight_V: NDArray[np.int64], why: str) -> Shared:
    """The code of each value, from 1 on in the order of their texts; 0 is what is missing or too rare to be learnt."""
    encoded = _texts(values).dictionary_encode()
    place_V = pc.fill_null(encoded.indices, -1).to_numpy()
    has_V = place_V >= 0
    weights = np.bincount(place_V[has_V], weight_V[has_V], len(encoded.dictionary))
    often = np.argsort(-weights, kind="stable")[:_MOST_CODES]
    kept = sorted(encoded.dictionary.take(pa.array(often[weights[often] >= FEWEST])).to_pylist())
    here = _texts(feature.values).drop_null()
    known = _share_in(here, pa.array(kept, pa.string()))
    if known < _LEAST_KNOWN:
        who = "users" if feature.entity == "user" and feature.name != "user_id" else "rows"
        raise _Unfit(f"{known:.0%} of its values here are known there, where at least {FEWEST} {who} have them")
    if len(kept) < 2:
        raise _Unfit("the same there in every row")
    codes = {text: code for code, text in enumerate(kept, 1)}
    code_of = np.array([codes.get(text, 0) for text in encoded.dictionary.to_pylist()] + [0], np.int64)
    why = f"{why}; {len(kept):,} values there"
    return Shared(feature, _input(feature, codes=len(kept) + 1), code_of[place_V], known, why, codes)


def _input(feature: DomainFeature, *, codes: int | None = None, width: int = 1, default: float = 0.0) -> DesignInput:
    """The input of the teacher, named after the feature."""
    bare = feature.bare
    name = bare if bare in ("user_id", "item_id") else f"{feature.entity or 'context'}_{bare}"
    return DesignInput(name=name, table=_TABLES[feature.entity], codes=codes, width=width, default=default)


def same_ids(entity: Entity, target: Domain, source: Domain) -> tuple[bool, str]:
    """Whether the target's users (or items) are the source's, and why.

    A column that both tables have decides, else how many ids both have. Ids that are numbers from 1 on say nothing:
    both domains may number theirs so.
    """
    here, there = (_texts(domain.ids[entity].distinct) for domain in (target, source))
    known = _share_in(here, there)
    why = f"the source has {known:.0%} of the {entity}s here"
    if known < _LEAST_KNOWN:
        return False, why
    if agreement := _agreement(entity, target, source):
        kappa, column, share = agreement
        by_chance = "" if kappa >= _AGREE else ", about as by chance"
        return kappa >= _AGREE, f"{why}, and {column} is equal in {share:.0%} of them{by_chance}"
    if known >= _BEYOND_CHANCE * _numbered_share(here, there):
        return True, why
    return False, f"{why}, but ids that are numbers say nothing: name tables of both with a column in common"


def _agreement(entity: Entity, target: Domain, source: Domain) -> tuple[float, str, float] | None:
    """Of the column that agrees best over the ids in both tables: Cohen's kappa, its name, the share that is equal.

    None without such a column.
    """
    if entity not in target.tables or entity not in source.tables:
        return None
    here, there = target.tables[entity], source.tables[entity]
    place = pc.index_in(_texts(here[f"{entity}_id"]), value_set=_texts(there[f"{entity}_id"]))
    in_both = pc.is_valid(place)
    if pc.sum(in_both).as_py() < _FEWEST_IN_BOTH:
        return None
    names_there = {names.identifier(name): name for name in there.column_names}
    agreements = []
    for name in here.column_names:
        name_there = names_there.get(names.identifier(name))
        if name in (f"{entity}_id", "event_timestamp") or name_there is None:
            continue
        value_here = _texts(here[name]).filter(in_both)
        value_there = _texts(there[name_there]).take(place.filter(in_both))
        equal = pc.mean(pc.equal(value_here, value_there)).as_py()
        chance = _share_by_chance(value_here, value_there)
        if equal is not None and chance < 1:
            agreements.append(((equal - chance) / (1 - chance), name, equal))
    return max(agreements, key=lambda agreement: agreement[0], default=None)


def _share_by_chance(values: pa.Array, others: pa.Array) -> float:
    """How often a value is equal to a random one of the others."""
    counts = [Counter(side.drop_null().to_pylist()) for side in (values, others)]
    total = counts[0].total() * counts[1].total()
    return sum(count * counts[1][value] for value, count in counts[0].items()) / total if total else 1.0


def _numbered_share(here: pa.Array, there: pa.Array) -> float:
    """The share of the ids here that any numbering has; 0 where they are not numbers, or not behind one text."""
    parts = pc.extract_regex(here, _NUMBERED)
    if parts.null_count or len(pc.unique(parts.field("head"))) > 1:
        return 0.0
    number = pc.struct_field(pc.extract_regex(there, _NUMBERED), "number").drop_null().cast(pa.int64()).to_numpy()
    return float(len(np.unique(number)) / (number.max() - number.min() + 1)) if len(number) else 0.0


def _share_in(values: pa.Array, known: pa.Array) -> float:
    return float(pc.mean(pc.is_in(values, value_set=known)).as_py() or 0.0)


def _texts(values: Any) -> Any:
    return texts(_whole(values)).cast(pa.string())


def _whole(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
