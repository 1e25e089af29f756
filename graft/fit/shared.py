"""Which features source and target share, by name and type, and the source's values of them as a teacher's inputs.

Shapes: N rows of the source's log, U users, I items; V values of a feature.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graft.fit.same_ids import same_ids
from graft.fit.source_log import SourceLog
from graft.fit.target import Target, TargetFeature
from graft.init import names
from graft.init.values import numbers, texts
from teacher_cache.fit.source import DesignInput

if TYPE_CHECKING:
    from features.spec import Entity

FEWEST = 5
"""Rows that an item, a category or an id needs for the teacher to know it; a feature of users needs so many users."""

_MOST_CODES = 200_000
_LEAST_KNOWN = 0.05  # of the target's values must be known to the source
_LEAST_LIKE = 0.01  # of the source's numbers must lie within the target's range: else they are of another unit
_TABLES: dict[str, Literal["rows", "users", "items"]] = {"user": "users", "item": "items", "": "rows"}


class Shared(NamedTuple):
    """A feature that both have. `codes`: value -> code of a category or an id. `low`, `high`: of numbers at the source.

    `known`: the share of the target's values that the source has.
    """

    feature: TargetFeature
    input: DesignInput
    values: NDArray[Any]
    known: float
    why: str
    codes: dict[str, int]
    low: float = 0.0
    high: float = 0.0


class Unshared(NamedTuple):
    """A feature of the target that is no input, and why."""

    name: str
    why: str


class _Unfit(Exception):  # noqa: N818 - no error: it ends the reading of one feature
    """Why a feature that is called alike is not shared."""


def share(target: Target, source: SourceLog) -> tuple[list[Shared], list[Unshared]]:
    """Every feature of the target, shared or not, the ids first."""
    shared: list[Shared] = []
    unshared: list[Unshared] = []
    for found in [*_ids(target, source), *_features(target, source)]:
        if isinstance(found, Unshared):
            unshared.append(found)
        elif found.input.name in [known.input.name for known in shared]:
            unshared.append(Unshared(found.feature.name, "another feature is called so"))
        else:
            shared.append(found)
    return shared, unshared


def _ids(target: Target, source: SourceLog) -> Iterator[Shared | Unshared]:
    entities: tuple[Entity, ...] = ("user", "item")
    for entity in entities:
        sameness = same_ids(entity, target, source)
        name = f"{entity}_id"
        if not sameness.is_same:
            yield Unshared(name, sameness.why)
            continue
        feature = TargetFeature(name, entity, "codes", "str", pc.unique(target.log.rows[entity].combine_chunks()))
        ids = source.ids[entity]
        try:
            yield _codes(feature, ids.distinct, ids.counts(), sameness.why)
        except _Unfit as reason:
            yield Unshared(name, str(reason))


def _features(target: Target, source: SourceLog) -> Iterator[Shared | Unshared]:
    for feature in sorted(target.features, key=lambda feature: feature.name):
        try:
            yield _shared(feature, source)
        except _Unfit as reason:
            yield Unshared(feature.name, str(reason))


def _shared(feature: TargetFeature, source: SourceLog) -> Shared:
    name, dtype, values, words = _counterpart(feature, source)
    why = f"{name} there, by name and type"
    if feature.kind == "number":
        if dtype not in ("int", "float"):
            raise _Unfit(f"a number here, {name} there is {_article(dtype)}")
        return _number(feature, values, why)
    if feature.kind == "vector":
        return _vector(feature, values, words, why)
    if dtype != feature.dtype:
        raise _Unfit(f"{_article(feature.dtype)} here, {name} there is {_article(dtype)}")
    return _codes(feature, values, _weights(feature, source), why)


def _counterpart(feature: TargetFeature, source: SourceLog) -> tuple[str, str, Any, tuple[str, ...]]:
    """The column of the source that is called alike: its name, type, values of each id or row, and words."""
    if not feature.entity:
        for context in source.context:
            if _alike(context.name, feature.bare):
                return context.column, context.dtype, source.log.rows[f"context.{context.name}"], ()
        raise _Unfit("no context there is called so")
    table = source.tables.get(feature.entity)
    if table is None:
        raise _Unfit(f"the source has no table of {feature.entity}s")
    for other in table.features:
        if _alike(other.name, feature.bare):
            values = source.of_ids(feature.entity, other.name)
            return other.column, other.dtype, values, other.words
    raise _Unfit("no column there is called so")


def _alike(one: str, other: str) -> bool:
    return one == other or names.likeness(one, other) == 1.0


def _number(feature: TargetFeature, values: Any, why: str) -> Shared:
    """Numbers; a missing one is their mean. The teacher is asked within the range of the source alone."""
    there = _floats(values)
    here = _floats(feature.values)
    there, here = there[~np.isnan(there)], here[~np.isnan(here)]
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
    filled = np.nan_to_num(_floats(values), nan=default).astype(np.float32)
    spec = _input(feature, default=default)
    return Shared(feature, spec, filled, known, f"{why}; {spans}", {}, low, high)


def _floats(values: Any) -> NDArray[np.float64]:
    found = numbers(values)
    array: NDArray[np.float64] = (
        found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy()
    )
    return array.astype(np.float64)


def _vector(feature: TargetFeature, values: Any, words: tuple[str, ...], why: str) -> Shared:
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
    there_XW = np.array([zeros if row is None else row for row in values.to_pylist()], np.float32)
    there_XW = np.nan_to_num(there_XW.reshape(len(values), -1))
    if words:
        both = [word for word in feature.words if word in words]
        if not both:
            raise _Unfit(f"no word in common: {', '.join(words[:3])} there, {', '.join(feature.words[:3])} here")
        why = f"{why}; {len(both)} of {len(feature.words)} words are known there"
        place = {word: i for i, word in enumerate(words)}
        columns = [there_XW[:, place[w]] if w in place else np.zeros(len(there_XW), np.float32) for w in feature.words]
        there_XW = np.stack(columns, axis=1)
    if not there_XW.any():
        raise _Unfit("empty there")
    return Shared(feature, _input(feature, width=there_XW.shape[1]), there_XW, 1.0, why, {})


def _width(values: Any) -> int:
    lengths = pc.unique(pc.list_value_length(values.drop_null())).to_pylist() if pa.types.is_nested(values.type) else []
    return int(lengths[0]) if len(lengths) == 1 else 0


def _weights(feature: TargetFeature, source: SourceLog) -> NDArray[np.int64]:
    """How much each value counts: of a feature of users 1, else its rows."""
    if feature.entity == "user":
        return np.ones(len(source.ids["user"].distinct), np.int64)
    if feature.entity == "item":
        return source.ids["item"].counts()
    return np.ones(source.log.rows.num_rows, np.int64)


def _codes(feature: TargetFeature, values: Any, weight_X: NDArray[np.int64], why: str) -> Shared:
    """The code of each value, from 1 on in the order of their texts; 0 is what is missing or too rare to be learnt."""
    encoded = texts(_plain(values)).cast(pa.string()).dictionary_encode()
    place_X = pc.fill_null(encoded.indices, -1).to_numpy()
    has_X = place_X >= 0
    weight_V = np.bincount(place_X[has_X], weight_X[has_X], len(encoded.dictionary))
    often = np.argsort(-weight_V, kind="stable")[:_MOST_CODES]
    kept = sorted(encoded.dictionary.take(pa.array(often[weight_V[often] >= FEWEST])).to_pylist())
    here = texts(_plain(feature.values)).cast(pa.string()).drop_null()
    known = float(pc.mean(pc.is_in(here, value_set=pa.array(kept, pa.string()))).as_py() or 0.0) if len(here) else 0.0
    if known < _LEAST_KNOWN:
        who = "users" if feature.entity == "user" and feature.name != "user_id" else "rows"
        raise _Unfit(f"{known:.0%} of its values here are known there, where at least {FEWEST} {who} have them")
    if len(kept) < 2:
        raise _Unfit("the same there in every row")
    codes = {text: code for code, text in enumerate(kept, 1)}
    code_V = np.array([codes.get(text, 0) for text in encoded.dictionary.to_pylist()] + [0], np.int64)
    why = f"{why}; {len(kept):,} values there"
    return Shared(feature, _input(feature, codes=len(kept) + 1), code_V[place_X], known, why, codes)


def _plain(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _input(feature: TargetFeature, *, codes: int | None = None, width: int = 1, default: float = 0.0) -> DesignInput:
    """The input of the teacher, named after the feature."""
    bare = feature.bare
    name = bare if bare in ("user_id", "item_id") else f"{feature.entity or 'context'}_{bare}"
    assert math.isfinite(default)
    return DesignInput(name=name, table=_TABLES[feature.entity], codes=codes, width=width, default=default)


def _article(dtype: str) -> str:
    return {"int": "an integer", "float": "a number", "str": "a text"}.get(dtype, "a list")
